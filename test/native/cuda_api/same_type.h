// Whether what native/cuda/api.h declares of CUDA's driver API is, for a caller, what cuda.h declares.
#pragma once

#include <type_traits>

namespace layerstream::test {

// Of two pointees that are classes: specialized for those that stand for one another.
template <class Ours, class Theirs>
constexpr bool kTwins = false;

// Enumerations are plain integers in ours; classes are compared by kTwins.
template <class Ours, class Theirs>
constexpr bool same_type() {
  if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>) {
    using To = std::remove_pointer_t<Ours>;
    using Their = std::remove_pointer_t<Theirs>;
    return std::is_const_v<To> == std::is_const_v<Their> && same_type<std::remove_cv_t<To>, std::remove_cv_t<Their>>();
  } else if constexpr (std::is_class_v<Ours> || std::is_class_v<Theirs>) {
    return kTwins<Ours, Theirs>;
  } else if constexpr (std::is_void_v<Ours> || std::is_void_v<Theirs> || std::is_floating_point_v<Ours> || std::is_floating_point_v<Theirs>) {
    return std::is_same_v<Ours, Theirs>;
  } else {
    const bool numbers = (std::is_integral_v<Ours> || std::is_enum_v<Ours>) && (std::is_integral_v<Theirs> || std::is_enum_v<Theirs>);
    return numbers && sizeof(Ours) == sizeof(Theirs);
  }
}

template <class Ours, class Theirs>
struct SameFunction : std::false_type {};
template <class OurResult, class... Ours, class TheirResult, class... Theirs>
  requires(sizeof...(Ours) == sizeof...(Theirs))
struct SameFunction<OurResult (*)(Ours...), TheirResult (*)(Theirs...)>
    : std::bool_constant<same_type<OurResult, TheirResult>() && (same_type<Ours, Theirs>() && ...)> {};

}  // namespace layerstream::test
