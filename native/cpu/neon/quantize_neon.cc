#if defined(__aarch64__) || defined(_M_ARM64)

#include "levels.h"

#include "../generic/quantize.h"

#endif
