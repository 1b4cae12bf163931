#if defined(__x86_64__) || defined(_M_X64)

#include "levels.h"

#include "../generic/quantize.h"

#endif
