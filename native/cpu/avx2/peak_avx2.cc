#if defined(__x86_64__) || defined(_M_X64)

#include "simd.h"

#include "../generic/peak.h"

#endif
