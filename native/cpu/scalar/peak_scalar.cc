#include "simd.h"

#include "../generic/peak.h"
