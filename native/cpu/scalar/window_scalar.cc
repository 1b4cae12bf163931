#include "decode.h"

#include "../generic/window_cursor.h"

#include "../generic/window.h"
