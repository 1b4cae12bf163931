// bf16_window (backend/format.h). Continues weights.cl.

#if FORMAT_bf16_window

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

#if WIDE
// Three bytes of the codes of a step, which are the last 24 of 64, lowest in each quadword.
#define CODES(first) first, first + 1, first + 2, 0, 0, 0, 0, 0
constant Bytes kCodeSpread = {CODES(40), CODES(43), CODES(46), CODES(49), CODES(52), CODES(55), CODES(58), CODES(61)};
#define SHIFTS 0, 3, 6, 9, 12, 15, 18, 21
constant Bytes kCodeShifts = {SHIFTS, SHIFTS, SHIFTS, SHIFTS, SHIFTS, SHIFTS, SHIFTS, SHIFTS};
// Words 16 * v ... of 32 in the upper halves of lanes.
#define UPPER(first) 0, first, 0, first + 1, 0, first + 2, 0, first + 3
constant Words kUpperWords[2] = {{UPPER(0), UPPER(4), UPPER(8), UPPER(12)}, {UPPER(16), UPPER(20), UPPER(24), UPPER(28)}};
// Bytes of two vectors by turns.
#define TURNS(first) first, 64 + first, first + 1, 65 + first, first + 2, 66 + first, first + 3, 67 + first
#define EIGHT_TURNS(first) TURNS(first), TURNS(first + 4)

INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  const Window window = find_step(layout, row, step, state);
  const Bytes spread = permute_bytes(kCodeSpread, load_wide(window.codes - 40));
  const Bytes codes = select_bits(kCodeShifts, spread) & 7;
  const ulong escaped = (ulong)__builtin_ia32_cmpb512_mask(codes, (Bytes){} + 7, 0, -1L);
  const Bytes exponents = expand_bytes(codes + (char)window.least, escaped, load_wide(row + window.escape));
  *state = window.escape + (uint)popcount(escaped);
  // From the highest bit on: exponent, mantissa, sign. A rotation brings the sign to the top.
  const Bytes rest = load_wide(window.places);
  const Words words[2] = {
      rotate_right((Words)__builtin_shufflevector(rest, exponents, EIGHT_TURNS(0), EIGHT_TURNS(16), EIGHT_TURNS(32), EIGHT_TURNS(48))),
      rotate_right((Words)__builtin_shufflevector(rest, exponents, EIGHT_TURNS(8), EIGHT_TURNS(24), EIGHT_TURNS(40), EIGHT_TURNS(56)))};
#pragma unroll
  for (uint v = 0; v < 4; ++v) {
    SixteenFloats upper;
    upper.elements = (__typeof__(upper.elements))__builtin_ia32_selectw_512(
        0xaaaaaaaau, __builtin_ia32_permvarhi512(words[v / 2], kUpperWords[v % 2]), (Words){});
    weights[v] = upper.vector;
  }
}
#else
INLINE float16 window_values(uchar16 rest, uint16 exponents) {
  const uint16 bytes = convert_uint16(rest);
  return as_float16(bytes << 31 | (exponents & 255) << 23 | (bytes & 254) << 15);
}

// Sixteen codes.
INLINE uint16 codes_of(ulong pair) {
  const uint8 places = (uint8)(0, 3, 6, 9, 12, 15, 18, 21);
  return (uint16)((uint8)((uint)pair), (uint8)((uint)(pair >> 24))) >> (uint16)(places, places) & 7;
}

INLINE uint16 exponents_of(ulong pair, uint least, global const uchar* row, uint* escape) {
  const uint16 codes = codes_of(pair);
  if (!any(codes == 7)) return codes + least;
  uint values[16];
  vstore16(codes, 0, values);
  for (uint i = 0; i < 16; ++i) values[i] = values[i] == 7 ? row[(*escape)++] : values[i] + least;
  return vload16(0, values);
}

INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  const Window window = find_step(layout, row, step, LANES == 1 ? state : 0);
  const ulong words[3] = {as_ulong(vload8(0, window.codes)), as_ulong(vload8(1, window.codes)), as_ulong(vload8(2, window.codes))};
  // Two groups each. Groups 2l have columns 8l, groups 2l + 1 columns 32 + 8l.
  const ulong pairs[4] = {words[0], words[0] >> 48 | words[1] << 16, words[1] >> 32 | words[2] << 32, words[2] >> 16};
  *state = window.escape;
  float16 places[4];
#pragma unroll
  for (uint l = 0; l < 4; ++l) places[l] = window_values(vload16(l, window.places), exponents_of(pairs[l], window.least, row, state));
#pragma unroll
  for (uint v = 0; v < 2; ++v) {
    weights[v] = (float16)(places[2 * v].lo, places[2 * v + 1].lo);
    weights[v + 2] = (float16)(places[2 * v].hi, places[2 * v + 1].hi);
  }
}
#endif
#endif
