// Numbers: half precision in and out, the exponential, and rows of floats that map to vector registers.
// Plain C++, so that every processor's compiler can make its own instructions of it.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace folio {

constexpr float FP16_MAX = 65504.0f;
constexpr int LANES = 16;

// Sixteen floats: one register with AVX-512, several elsewhere. Loads need no alignment.
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t LaneIndices __attribute__((vector_size(4 * LANES)));

inline const Lanes* lanes(const float* values) { return reinterpret_cast<const Lanes*>(values); }

inline Lanes* lanes(float* values) { return reinterpret_cast<Lanes*>(values); }

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Moves the exponent by a multiplication, which gets subnormal numbers right too.
inline float half_to_float(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const float scaled = bits_to_float(magnitude) * bits_to_float(0x77800000u);  // 2^112
  const uint32_t bits = magnitude >= 0x0f800000u ? (magnitude | 0x7f800000u) : float_to_bits(scaled);
  return bits_to_float(bits | sign);
}

// Rounds to nearest even. For values within +-FP16_MAX, and NaN, which stays one.
inline uint16_t float_to_half(float value) {
  const uint32_t bits = float_to_bits(value), sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude < 0x38800000u)  // subnormal as a half: the addition rounds at the right bit
    return static_cast<uint16_t>(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u));
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13));
}

inline float brain_to_float(uint16_t brain) { return bits_to_float(static_cast<uint32_t>(brain) << 16); }

// Rounds to nearest even.
inline uint16_t float_to_brain(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// e^x for x <= 0, as 2^n times a polynomial; relative error 2e-7. Never below the smallest normal number.
inline Lanes exponential(Lanes x) {
  const Lanes smallest = Lanes{} - 126.0f, wanted = x * 1.44269504f;
  const Lanes exponent = wanted < smallest ? smallest : wanted;
  const LaneIndices whole = __builtin_convertvector(exponent - 0.5f, LaneIndices);  // truncates: rounds what is negative
  const Lanes rest = (exponent - __builtin_convertvector(whole, Lanes)) * 0.69314718f;
  Lanes sum = rest * (1.0f / 5040) + 1.0f / 720;
  sum = sum * rest + 1.0f / 120;
  sum = sum * rest + 1.0f / 24;
  sum = sum * rest + 1.0f / 6;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1.0f;
  sum = sum * rest + 1.0f;
  const LaneIndices power = (whole + 127) << 23;
  return sum * reinterpret_cast<const Lanes&>(power);
}

inline float exponential(float x) { return exponential(Lanes{} + x)[0]; }

// Folds sixteen lanes into one by halves.
template <typename Fold>
float fold_lanes(Lanes values, Fold fold) {
  values = fold(values, __builtin_shuffle(values, LaneIndices{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}));
  values = fold(values, __builtin_shuffle(values, LaneIndices{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11}));
  values = fold(values, __builtin_shuffle(values, LaneIndices{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13}));
  values = fold(values, __builtin_shuffle(values, LaneIndices{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14}));
  return values[0];
}

inline float sum_of(Lanes values) {
  return fold_lanes(values, [](Lanes left, Lanes right) { return left + right; });
}

inline Lanes larger_of(Lanes left, Lanes right) { return left > right ? left : right; }

inline float largest_of(Lanes values) { return fold_lanes(values, larger_of); }

inline float dot(const float* left, const float* right, int64_t size) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) sum += left[i] * right[i];
  return sum;
}

// The orthonormal Walsh-Hadamard transform in place; it is its own inverse.
inline void rotate(float* vector, int64_t size) {
  for (int64_t half = 1; half < size; half *= 2)
    for (int64_t start = 0; start < size; start += 2 * half)
#pragma omp simd
      for (int64_t i = start; i < start + half; ++i) {
        const float low = vector[i], high = vector[i + half];
        vector[i] = low + high;
        vector[i + half] = low - high;
      }
  const float norm = 1.0f / std::sqrt(static_cast<float>(size));
  for (int64_t i = 0; i < size; ++i) vector[i] *= norm;
}

}  // namespace folio
