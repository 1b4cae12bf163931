#if defined(__aarch64__) || defined(_M_ARM64)

#include "simd.h"

#include "../generic/peak.h"

#endif
