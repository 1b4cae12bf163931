#include "simd.h"

#include "../generic/quantize.h"
