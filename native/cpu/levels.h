// How a number becomes one of the levels of kNormalFloat4.
#pragma once

#include "../backend/format.h"

namespace layerstream::cpu {

// Midpoints of neighbouring levels: the code of the level nearest to x is the number of thresholds below x.
constexpr float kNearestThresholds[15] = {
    (kNormalFloat4[0] + kNormalFloat4[1]) * 0.5f,   (kNormalFloat4[1] + kNormalFloat4[2]) * 0.5f,
    (kNormalFloat4[2] + kNormalFloat4[3]) * 0.5f,   (kNormalFloat4[3] + kNormalFloat4[4]) * 0.5f,
    (kNormalFloat4[4] + kNormalFloat4[5]) * 0.5f,   (kNormalFloat4[5] + kNormalFloat4[6]) * 0.5f,
    (kNormalFloat4[6] + kNormalFloat4[7]) * 0.5f,   (kNormalFloat4[7] + kNormalFloat4[8]) * 0.5f,
    (kNormalFloat4[8] + kNormalFloat4[9]) * 0.5f,   (kNormalFloat4[9] + kNormalFloat4[10]) * 0.5f,
    (kNormalFloat4[10] + kNormalFloat4[11]) * 0.5f, (kNormalFloat4[11] + kNormalFloat4[12]) * 0.5f,
    (kNormalFloat4[12] + kNormalFloat4[13]) * 0.5f, (kNormalFloat4[13] + kNormalFloat4[14]) * 0.5f,
    (kNormalFloat4[14] + kNormalFloat4[15]) * 0.5f,
};

}  // namespace layerstream::cpu
