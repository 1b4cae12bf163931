#include "decode.h"

#include "../generic/window.h"
