// Pages as stored, and as attention reads them: codes as floats in a buffer that stays in the first-level cache, and
// scales and zeros beside them, to be folded into queries and probabilities instead of into every element.
// Where fields lie comes from layout.py through `Pool`; `cpu_library.py` mirrors both structs.

#pragma once

#include "numbers.h"

extern "C" {

struct Pool {
  char* raw;
  const uint8_t* sealed;
  int64_t num_layers, num_kv_heads, head_dim, raw_dtype;
  int64_t key_bits, value_bits, rotates_values, record_bytes;
  // Bytes from a record's start; -1 for a field that the codec does not have.
  int64_t key_codes, value_codes, key_scale, key_zero, value_scale, value_zero;
};

struct Batch {
  int64_t num_sequences, num_pages, num_open_pages;
  const int32_t *query_starts, *lengths, *page_tables, *page_kinds, *open_pages;
};

}  // extern "C"

namespace folio {

constexpr int PAGE_SIZE = 64;
constexpr int SEALED = 1;

enum Dtype : int64_t { FLOAT32 = 0, FLOAT16 = 1, BFLOAT16 = 2 };

inline int64_t element_bytes(int64_t dtype) { return dtype == FLOAT32 ? 4 : 2; }

inline void widen(const void* stored, int64_t dtype, int64_t count, float* __restrict values) {
  const auto* halves = static_cast<const uint16_t*>(stored);
  if (dtype == FLOAT32) {
    std::memcpy(values, stored, count * sizeof(float));
  } else if (dtype == FLOAT16) {
    for (int64_t i = 0; i < count; ++i) values[i] = half_to_float(halves[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) values[i] = brain_to_float(halves[i]);
  }
}

// A float16 saturates rather than become infinite.
inline void narrow(const float* __restrict values, int64_t dtype, int64_t count, void* stored) {
  auto* halves = static_cast<uint16_t*>(stored);
  if (dtype == FLOAT32) {
    std::memcpy(stored, values, count * sizeof(float));
  } else if (dtype == FLOAT16) {
    for (int64_t i = 0; i < count; ++i) halves[i] = float_to_half(std::clamp(values[i], -FP16_MAX, FP16_MAX));
  } else {
    for (int64_t i = 0; i < count; ++i) halves[i] = float_to_brain(values[i]);
  }
}

// Codes of a page's tokens as floats, from the layout in which byte b holds dims b, b + D/n, b + 2D/n, ...
template <int HEAD_DIM, int BITS>
void unpack(const uint8_t* __restrict packed, float* __restrict codes) {
  constexpr int NUM_BYTES = HEAD_DIM * BITS / 8;
  for (int token = 0; token < PAGE_SIZE; ++token, packed += NUM_BYTES, codes += HEAD_DIM)
    for (int stream = 0; stream < 8 / BITS; ++stream)
      for (int b = 0; b < NUM_BYTES; ++b) {
        const int code = BITS == 8 ? static_cast<int8_t>(packed[b]) : (packed[b] >> (stream * BITS)) & ((1 << BITS) - 1);
        codes[stream * NUM_BYTES + b] = static_cast<float>(code);
      }
}

template <int HEAD_DIM>
void unpack(const uint8_t* packed, int64_t bits, float* codes) {
  if (bits == 8) return unpack<HEAD_DIM, 8>(packed, codes);
  if (bits == 4) return unpack<HEAD_DIM, 4>(packed, codes);
  unpack<HEAD_DIM, 2>(packed, codes);
}

template <int HEAD_DIM>
struct Buffers {
  alignas(64) float keys[PAGE_SIZE * HEAD_DIM], values[PAGE_SIZE * HEAD_DIM], transposed[PAGE_SIZE * HEAD_DIM];
  alignas(64) float key_scale[HEAD_DIM], key_zero[HEAD_DIM], value_scale[PAGE_SIZE], value_zero[PAGE_SIZE];
};

// A page's keys and values, floats `[page_size, head_dim]` before scales and zeros, which are null where there are none.
// Tokens that are not appended yet may hold anything.
struct PageView {
  const float *keys, *values, *key_scale, *key_zero, *value_scale, *value_zero;
};

template <int HEAD_DIM>
PageView view_of(const void* keys, const void* values, int64_t dtype, int num_tokens, Buffers<HEAD_DIM>& buffers) {
  if (dtype == FLOAT32)
    return {static_cast<const float*>(keys), static_cast<const float*>(values), nullptr, nullptr, nullptr, nullptr};
  widen(keys, dtype, num_tokens * HEAD_DIM, buffers.keys);
  widen(values, dtype, num_tokens * HEAD_DIM, buffers.values);
  return {buffers.keys, buffers.values, nullptr, nullptr, nullptr, nullptr};
}

template <int HEAD_DIM>
PageView raw_view(const Pool& pool, int64_t record, int num_tokens, Buffers<HEAD_DIM>& buffers) {
  const int64_t bytes = PAGE_SIZE * HEAD_DIM * element_bytes(pool.raw_dtype);
  const char* keys = pool.raw + record * 2 * bytes;
  return view_of(keys, keys + bytes, pool.raw_dtype, num_tokens, buffers);
}

inline const float* metadata(const uint8_t* record, int64_t offset, int64_t count, float* buffer) {
  if (offset < 0) return nullptr;
  widen(record + offset, FLOAT16, count, buffer);
  return buffer;
}

template <int HEAD_DIM>
PageView sealed_view(const Pool& pool, int64_t record_index, Buffers<HEAD_DIM>& buffers) {
  const uint8_t* record = pool.sealed + record_index * pool.record_bytes;
  const uint8_t *keys = record + pool.key_codes, *values = record + pool.value_codes;
  if (pool.key_bits == 16) return view_of(keys, values, pool.raw_dtype, PAGE_SIZE, buffers);
  unpack<HEAD_DIM>(keys, pool.key_bits, buffers.keys);
  unpack<HEAD_DIM>(values, pool.value_bits, buffers.values);
  return {buffers.keys,
          buffers.values,
          metadata(record, pool.key_scale, HEAD_DIM, buffers.key_scale),
          metadata(record, pool.key_zero, HEAD_DIM, buffers.key_zero),
          metadata(record, pool.value_scale, PAGE_SIZE, buffers.value_scale),
          metadata(record, pool.value_zero, PAGE_SIZE, buffers.value_zero)};
}

}  // namespace folio
