// How a number becomes one of the levels of kNormalFloat4, exactly and for trials.
#pragma once

#include <cstdint>

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

// Trials of scales run in integers, exact on every instruction set. A block's weights, divided by their largest
// magnitude, become int16 with kWeightUnits to 1. Multiplied by kTrialUnits / kWeightUnits / fraction, with rounding,
// they are the weights over the trial scale with kTrialUnits to 1, saturated to int8: both outermost thresholds lie
// within. kTrialLevels turns that into the nearest level, with kLevelUnits to 1.
constexpr int kWeightUnits = 4096;
constexpr int kTrialUnits = 140;
constexpr int kLevelUnits = 127;

// The factor of a trial, for (weight * factor + 2^14) >> 15.
constexpr int16_t trial_factor(double fraction) {
  const double factor = 32768.0 * kTrialUnits / kWeightUnits / fraction;
  return static_cast<int16_t>(factor < 0 ? factor - 0.5 : factor + 0.5);
}
// The factor that turns weights of kWeightUnits into weights of kLevelUnits.
constexpr int16_t kLevelFactor = 32768 / kWeightUnits * kLevelUnits;

struct TrialLevels {
  int8_t of[256];  // by the number's low 8 bits
};

constexpr TrialLevels make_trial_levels() {
  TrialLevels levels = {};
  for (int number = -128; number < 128; number++) {
    int code = 0;
    for (float threshold : kNearestThresholds) code += static_cast<float>(number) > threshold * kTrialUnits;
    const float level = kNormalFloat4[code] * kLevelUnits;
    levels.of[number & 255] = static_cast<int8_t>(level < 0 ? level - 0.5f : level + 0.5f);
  }
  return levels;
}

alignas(64) constexpr TrialLevels kTrialLevels = make_trial_levels();

// Sums over a block with the levels of one trial, weight and level in kLevelUnits.
struct TrialSums {
  int32_t product;  // of weight * level
  int32_t square;   // of level^2
};

}  // namespace layerstream::cpu
