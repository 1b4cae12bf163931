#include "decode.h"

#include "../generic/ggml.h"
