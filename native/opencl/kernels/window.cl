// bf16_window (backend/format.h). Continues weights.cl.

#if FORMAT_bf16_window
#define HAS_STEP 1

// Eight codes of three bits, of which those that are 7 have a bit set.
INLINE uint sevens_of(uint codes) { return codes & codes >> 1 & codes >> 2 & 0x249249u; }

INLINE uint load_codes(global const uchar* source) { return load_ushort(source) | (uint)source[2] << 16; }

// Columns 8 * l + i of a step are in place 16 * l + i, columns 32 + 8 * l + i in place 16 * l + 8 + i.
INLINE uint place_of(uint column) { return column / 8 % 4 * 16 + column / 32 * 8 + column % 8; }

typedef struct {
  global const uchar* places;  // of the step
  global const uchar* codes;
  global const uchar* escape;  // the step's first
  uint least;
} Window;

INLINE Window find_step(const Row* layout, global const uchar* row, uint step) {
  const uint window = step / 8, within = step % 8;
  const uint windows = (layout->columns + 511) / 512;
  const uint steps = (min(layout->columns - 512 * window, 512u) + 63) / 64;
  global const uchar* const header = row + layout->block + 3 * (size_t)window;
  global const uchar* const data = row + layout->block + 3 * (size_t)windows + 704 * (size_t)window;
  global const uchar* const codes = data + 64 * steps;
  uint escape = min(load_ushort(header + 1), layout->block);
  for (uint group = 0; group < 8 * within; ++group) escape += popcount(sevens_of(load_codes(codes + 3 * group)));
  const Window found = {data + 64 * within, codes + 24 * within, row + escape, header[0]};
  return found;
}

INLINE float window_value(uint rest, uint exponent) {
  return as_float(rest << 31 | (exponent & 255) << 23 | (rest & 254) << 15);
}

INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  const Window window = find_step(layout, row, column / 64);
  const uint place = place_of(column % 64), group = place / 8, bit = 3 * (place % 8);
  uint escapes = 0;
  for (uint g = 0; g < group; ++g) escapes += popcount(sevens_of(load_codes(window.codes + 3 * g)));
  const uint codes = load_codes(window.codes + 3 * group), code = codes >> bit & 7;
  escapes += popcount(sevens_of(codes) & ((1u << bit) - 1));
  return window_value(window.places[place], code == 7 ? window.escape[escapes] : window.least + code);
}

INLINE void decode_step(const Row* layout, global const uchar* row, uint step, float16 weights[4]) {
  Window window = find_step(layout, row, step);
  float values[64];
  for (uint group = 0; group < 8; ++group) {
    const uint codes = load_codes(window.codes + 3 * group);
    const uint first = group / 2 * 8 + group % 2 * 32;
    for (uint i = 0; i < 8; ++i) {
      const uint code = codes >> 3 * i & 7;
      values[first + i] = window_value(window.places[8 * group + i], code == 7 ? *window.escape : window.least + code);
      window.escape += code == 7;
    }
  }
  for (uint v = 0; v < 4; ++v) weights[v] = vload16(v, values);
}
#endif
