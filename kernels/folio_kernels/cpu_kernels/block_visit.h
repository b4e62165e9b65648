// Four queries at once over one page: every key and value that is loaded serves all four. For chunks of a prompt, whose
// many queries repay that the page's keys are transposed first.

#pragma once

#include "page_visit.h"

namespace folio {

constexpr int BLOCK = 4;

// Keys as `[head_dim, page_size]`, so that a register holds sixteen tokens' entries of one dimension.
template <int HEAD_DIM>
void transpose_keys(const PageView& page, float* __restrict transposed) {
  for (int first = 0; first < PAGE_SIZE; first += LANES)
    for (int d = 0; d < HEAD_DIM; ++d)
      for (int token = first; token < first + LANES; ++token)
        transposed[d * PAGE_SIZE + token] = page.keys[token * HEAD_DIM + d];
}

template <int HEAD_DIM>
void fill_scores(const float (*queries)[HEAD_DIM], const float* transposed, float (*scores)[PAGE_SIZE]) {
  constexpr int NUM_PARTS = PAGE_SIZE / LANES;
  Lanes sums[BLOCK][NUM_PARTS] = {};
  for (int d = 0; d < HEAD_DIM; ++d)
    for (int query = 0; query < BLOCK; ++query)
      for (int part = 0; part < NUM_PARTS; ++part)
        sums[query][part] += queries[query][d] * lanes(transposed + d * PAGE_SIZE)[part];
  for (int query = 0; query < BLOCK; ++query)
    for (int part = 0; part < NUM_PARTS; ++part) lanes(scores[query])[part] = sums[query][part];
}

template <int HEAD_DIM>
void add_values(const PageView& page, int num_tokens, const float (*weights)[PAGE_SIZE], State<HEAD_DIM>* states) {
  constexpr int NUM_PARTS = 4, WIDTH = NUM_PARTS * LANES;
  for (int first = 0; first < HEAD_DIM; first += WIDTH) {
    Lanes sums[BLOCK][NUM_PARTS];
    for (int query = 0; query < BLOCK; ++query)
      for (int part = 0; part < NUM_PARTS; ++part) sums[query][part] = lanes(states[query].output + first)[part];
    for (int token = 0; token < num_tokens; ++token)
      for (int query = 0; query < BLOCK; ++query)
        for (int part = 0; part < NUM_PARTS; ++part)
          sums[query][part] += weights[query][token] * lanes(page.values + token * HEAD_DIM + first)[part];
    for (int query = 0; query < BLOCK; ++query)
      for (int part = 0; part < NUM_PARTS; ++part) lanes(states[query].output + first)[part] = sums[query][part];
  }
}

// `num_tokens` of each query: ascending. Slots behind the last one's may hold anything, NaN too.
template <int HEAD_DIM>
void visit_block(const PageView& page, const float* transposed, const int* num_tokens, const float* queries,
                 State<HEAD_DIM>* states) {
  alignas(64) float folded[BLOCK][HEAD_DIM], weights[BLOCK][PAGE_SIZE];
  float constants[BLOCK];
  for (int query = 0; query < BLOCK; ++query)
    constants[query] = fold_keys<HEAD_DIM>(page, queries + query * HEAD_DIM, folded[query]);
  fill_scores<HEAD_DIM>(folded, transposed, weights);
  for (int query = 0; query < BLOCK; ++query)
    absorb_scores(page, num_tokens[query], constants[query], weights[query], states[query]);
  add_values<HEAD_DIM>(page, num_tokens[BLOCK - 1], weights, states);
}

}  // namespace folio
