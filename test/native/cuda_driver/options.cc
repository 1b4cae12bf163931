#include "options.h"

#include <cstdlib>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>

namespace layerstream::cuda_driver {

Options read_options() {
  Options options;
  const std::map<std::string, uint64_t*> names = {
      {"devices", &options.devices},       {"memory", &options.memory}, {"granularity", &options.granularity},
      {"version", &options.version},       {"image", &options.image},   {"allocation", &options.allocation},
      {"lose", &options.lose},             {"status", &options.status}, {"launch", &options.launch},
      {"delay", &options.delay},           {"order", &options.order},   {"multiprocessors", &options.multiprocessors},
      {"capability", &options.capability}, {"skip", &options.skip}, {"function", &options.function},
  };
  const char* const text = getenv("LAYERSTREAM_CUDA_DRIVER");
  std::istringstream stream(text == nullptr ? "" : text);
  for (std::string each; std::getline(stream, each, ',');) {
    const size_t equals = each.find('=');
    const auto found = names.find(each.substr(0, equals));
    if (equals == std::string::npos || found == names.end()) throw std::invalid_argument("LAYERSTREAM_CUDA_DRIVER: " + each);
    *found->second = std::stoull(each.substr(equals + 1));
  }
  return options;
}

}  // namespace layerstream::cuda_driver
