#include "simd.h"

#include "../generic/attention.h"
