#include "simd.h"

#include "../generic/vector.h"
