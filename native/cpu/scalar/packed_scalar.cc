#include "decode.h"

#include "../generic/packed.h"
