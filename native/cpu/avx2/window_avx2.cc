#if defined(__x86_64__) || defined(_M_X64)

#include "decode.h"

#include "../generic/window_cursor.h"

#include "../generic/window.h"

#endif
