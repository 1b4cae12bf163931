#if defined(__aarch64__) || defined(_M_ARM64)

#include "decode.h"

#include "../generic/window_cursor.h"

#include "../generic/window.h"

#endif
