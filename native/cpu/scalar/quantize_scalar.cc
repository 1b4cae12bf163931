#include "levels.h"

#include "../generic/quantize.h"
