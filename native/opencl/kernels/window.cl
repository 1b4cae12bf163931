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
  uint least, escape;  // place in the row of the step's first
} Window;

// Where a step is. Its escapes begin where those before it in the window end: they are counted, unless `escape` is known.
INLINE Window find_step(const Row* layout, global const uchar* row, uint step, const uint* escape) {
  const uint window = step / 8, within = step % 8;
  const uint windows = (layout->columns + 511) / 512;
  const uint steps = (min(layout->columns - 512 * window, 512u) + 63) / 64;
  global const uchar* const header = row + layout->block + 3 * (size_t)window;
  global const uchar* const data = row + layout->block + 3 * (size_t)windows + 704 * (size_t)window;
  global const uchar* const codes = data + 64 * steps;
  Window found = {data + 64 * within, codes + 24 * within, header[0], 0};
  if (escape != 0 && within != 0) {
    found.escape = *escape;
    return found;
  }
  found.escape = min(load_ushort(header + 1), layout->block);
  for (uint group = 0; group < 8 * within; ++group) found.escape += popcount(sevens_of(load_codes(codes + 3 * group)));
  return found;
}

INLINE float window_value(uint rest, uint exponent) {
  return as_float(rest << 31 | (exponent & 255) << 23 | (rest & 254) << 15);
}

INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  const Window window = find_step(layout, row, column / 64, 0);
  const uint place = place_of(column % 64), group = place / 8, bit = 3 * (place % 8);
  uint escapes = 0;
  for (uint g = 0; g < group; ++g) escapes += popcount(sevens_of(load_codes(window.codes + 3 * g)));
  const uint codes = load_codes(window.codes + 3 * group), code = codes >> bit & 7;
  escapes += popcount(sevens_of(codes) & ((1u << bit) - 1));
  return window_value(window.places[place], code == 7 ? row[window.escape + escapes] : window.least + code);
}

// The exponents of two groups of columns; those of escapes are wrong.
INLINE uint16 exponents_of(uint codes, uint other, uint least) {
  const uint8 places = (uint8)(0, 3, 6, 9, 12, 15, 18, 21);
  return ((uint16)((uint8)(codes) >> places, (uint8)(other) >> places) & 7) + least;
}

INLINE float16 window_values(uchar8 rest, uchar8 other, uint16 exponents) {
  const uint16 bytes = convert_uint16((uchar16)(rest, other));
  return as_float16(bytes << 31 | (exponents & 255) << 23 | (bytes & 254) << 15);
}

INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  const Window window = find_step(layout, row, step, LANES == 1 ? state : 0);
  const ulong words[3] = {as_ulong(vload8(0, window.codes)), as_ulong(vload8(1, window.codes)), as_ulong(vload8(2, window.codes))};
  // Two groups each. Groups 2l have columns 8l, groups 2l + 1 columns 32 + 8l.
  const ulong pairs[4] = {words[0], words[0] >> 48 | words[1] << 16, words[1] >> 32 | words[2] << 32, words[2] >> 16};
  ulong sevens[4];
#pragma unroll
  for (uint l = 0; l < 4; ++l) sevens[l] = pairs[l] & pairs[l] >> 1 & pairs[l] >> 2 & 0x249249249249ul;
#pragma unroll
  for (uint v = 0; v < 2; ++v) {
    const uchar16 first = vload16(2 * v, window.places), second = vload16(2 * v + 1, window.places);
    weights[v] = window_values(first.lo, second.lo, exponents_of((uint)pairs[2 * v], (uint)pairs[2 * v + 1], window.least));
    weights[v + 2] =
        window_values(first.hi, second.hi, exponents_of((uint)(pairs[2 * v] >> 24), (uint)(pairs[2 * v + 1] >> 24), window.least));
  }
  *state = window.escape;
  if ((sevens[0] | sevens[1] | sevens[2] | sevens[3]) == 0) return;
  float values[64];
  for (uint v = 0; v < 4; ++v) vstore16(weights[v], v, values);
  for (uint l = 0; l < 4; ++l) {
    for (ulong left = sevens[l]; left != 0; left &= left - 1) {
      const uint i = (uint)popcount((left & -left) - 1) / 3;
      values[8 * l + (i < 8 ? i : 24 + i)] = window_value(window.places[16 * l + i], row[(*state)++]);
    }
  }
  for (uint v = 0; v < 4; ++v) weights[v] = vload16(v, values);
}
#endif
