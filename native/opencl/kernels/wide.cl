// Vectors of 64 bytes, for processors with AVX-512 VBMI2 and VNNI. Compilers do not always know what the processor has: what they have no
// builtin for is written out.

#if !defined(__AVX512BW__)
#undef WIDE
#endif

#if WIDE
typedef char Bytes __attribute__((vector_size(64)));
typedef short Words __attribute__((vector_size(64)));
typedef ushort UnsignedWords __attribute__((vector_size(64)));
typedef Bytes UnalignedBytes __attribute__((aligned(1)));

INLINE Bytes load_wide(global const uchar* source) { return *(global const UnalignedBytes*)source; }

// table[index] of each byte.
INLINE Bytes permute_bytes(Bytes index, Bytes table) {
  Bytes result;
  __asm__("vpermb %2, %1, %0" : "=v"(result) : "v"(index), "v"(table));
  return result;
}

// Eight bits of each quadword, from bit first[i] on.
INLINE Bytes select_bits(Bytes first, Bytes quadwords) {
  Bytes result;
  __asm__("vpmultishiftqb %2, %1, %0" : "=v"(result) : "v"(first), "v"(quadwords));
  return result;
}

// `regular`, where `mask` is set the next bytes of `others`.
INLINE Bytes expand_bytes(Bytes regular, ulong mask, Bytes others) {
  __asm__("vpexpandb %2, %0 %{%1%}" : "+v"(regular) : "Yk"(mask), "v"(others));
  return regular;
}

// In each lane of 32 bits, the sum and the products of two pairs of words.
INLINE Words multiply_pairs(Words sum, Words a, Words b) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

INLINE Words rotate_right(Words words) {
  Words result;
  __asm__("vpshrdw $1, %1, %1, %0" : "=v"(result) : "v"(words));
  return result;
}
#endif
