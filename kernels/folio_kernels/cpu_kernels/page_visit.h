// One query over one page: scores, softmax with a running maximum, and the weighted sum of the values.
// Decoding needs no more: its few queries a page do not repay a rearrangement of the keys.

#pragma once

#include "pages.h"

namespace folio {

// Softmax state of one query: the largest score so far, the sum of exponentials, and of those times the values.
template <int HEAD_DIM>
struct State {
  float largest = -INFINITY, total = 0, output[HEAD_DIM] = {};
};

// From two registers one of half as many partial sums each: neighbours are added, those of `left` first.
inline Lanes add_neighbours(Lanes left, Lanes right) {
  constexpr LaneIndices EVEN = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  constexpr LaneIndices ODD = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  return __builtin_shuffle(left, right, EVEN) + __builtin_shuffle(left, right, ODD);
}

// Scores of sixteen tokens: sixteen products summed lane by lane, then their lanes by a tree of additions.
template <int HEAD_DIM>
inline Lanes scores_of(const float* query, const float* keys) {
  Lanes sums[LANES];
  for (int token = 0; token < LANES; ++token) {
    sums[token] = lanes(query)[0] * lanes(keys + token * HEAD_DIM)[0];
    for (int part = 1; part < HEAD_DIM / LANES; ++part)
      sums[token] += lanes(query)[part] * lanes(keys + token * HEAD_DIM)[part];
  }
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) sums[i] = add_neighbours(sums[2 * i], sums[2 * i + 1]);
  return sums[0];
}

// The query with the page's key scales folded in, `folded`, and what the key zeros add to each of its scores.
template <int HEAD_DIM>
float fold_keys(const PageView& page, const float* query, float* folded) {
  for (int d = 0; d < HEAD_DIM; ++d) folded[d] = page.key_scale == nullptr ? query[d] : query[d] * page.key_scale[d];
  return page.key_zero == nullptr ? 0.0f : dot(query, page.key_zero, HEAD_DIM);
}

// Turns a query's scores into the weights of the page's codes, and its state into one that the page is part of, but for
// the weighted sum of the codes. Tokens from `num_tokens` on get no weight, whatever their scores.
template <int HEAD_DIM>
void absorb_scores(const PageView& page, int num_tokens, float constant, float* scores, State<HEAD_DIM>& state) {
  constexpr int NUM_PARTS = PAGE_SIZE / LANES;
  std::fill(scores + num_tokens, scores + PAGE_SIZE, -INFINITY);
  Lanes weights[NUM_PARTS], largest_parts = lanes(scores)[0], total = {}, shift = {};
  for (int part = 1; part < NUM_PARTS; ++part) largest_parts = larger_of(largest_parts, lanes(scores)[part]);
  const float largest = std::max(state.largest, largest_of(largest_parts) + constant);
  for (int part = 0; part < NUM_PARTS; ++part) {
    weights[part] = exponential(lanes(scores)[part] + (constant - largest));
    total += weights[part];
    if (page.value_zero != nullptr) shift += weights[part] * lanes(page.value_zero)[part];
    lanes(scores)[part] = page.value_scale == nullptr ? weights[part] : weights[part] * lanes(page.value_scale)[part];
  }
  std::fill(scores + num_tokens, scores + PAGE_SIZE, 0.0f);
  const float correction = state.total == 0 ? 0.0f : exponential(state.largest - largest);
  const Lanes shifted = Lanes{} + (page.value_zero == nullptr ? 0.0f : sum_of(shift));
  for (int part = 0; part < HEAD_DIM / LANES; ++part)
    lanes(state.output)[part] = lanes(state.output)[part] * correction + shifted;
  state.total = state.total * correction + sum_of(total);
  state.largest = largest;
}

// Adds `weights` times the page's values to `output`. Two chains of sums, to keep both multipliers busy.
template <int HEAD_DIM>
void add_values(const PageView& page, int num_tokens, const float* weights, float* output) {
  constexpr int NUM_PARTS = HEAD_DIM / LANES, NUM_CHAINS = HEAD_DIM <= 128 ? 2 : 1;
  Lanes sums[NUM_CHAINS][NUM_PARTS] = {};
  for (int part = 0; part < NUM_PARTS; ++part) sums[0][part] = lanes(output)[part];
  int token = 0;
  for (; token + NUM_CHAINS <= num_tokens; token += NUM_CHAINS)
    for (int chain = 0; chain < NUM_CHAINS; ++chain)
      for (int part = 0; part < NUM_PARTS; ++part)
        sums[chain][part] += weights[token + chain] * lanes(page.values + (token + chain) * HEAD_DIM)[part];
  if (token < num_tokens)
    for (int part = 0; part < NUM_PARTS; ++part)
      sums[0][part] += weights[token] * lanes(page.values + token * HEAD_DIM)[part];
  for (int part = 0; part < NUM_PARTS; ++part)
    lanes(output)[part] = NUM_CHAINS == 2 ? sums[0][part] + sums[1][part] : sums[0][part];
}

// One query, of which only the page's first `num_tokens` tokens come before.
template <int HEAD_DIM>
void visit(const PageView& page, int num_tokens, const float* query, State<HEAD_DIM>& state) {
  alignas(64) float folded[HEAD_DIM], weights[PAGE_SIZE];
  const float constant = fold_keys<HEAD_DIM>(page, query, folded);
  for (int token = 0; token < num_tokens; token += LANES)
    *lanes(weights + token) = scores_of<HEAD_DIM>(folded, page.keys + token * HEAD_DIM);
  absorb_scores(page, num_tokens, constant, weights, state);
  add_values<HEAD_DIM>(page, num_tokens, weights, state.output);
}

}  // namespace folio
