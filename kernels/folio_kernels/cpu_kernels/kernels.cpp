// Appending to raw pages, and attention over raw and sealed ones without ever writing a decompressed page to memory.
//
// The mathematics is reference.py's. A history is read in tasks of a few pages, each by one thread for one KV head and
// all queries of its group; what the tasks of a history find is merged. Knows nothing of requests.

#include <omp.h>

#include <vector>

#include "block_visit.h"

namespace folio {
namespace {

// Pages of one task: a constant, so that how a history is summed never depends on what else is in the batch.
constexpr int64_t TASK_PAGES = 8;
// With fewer page visits a team of threads costs more than it saves.
constexpr int64_t MIN_PARALLEL_VISITS = 12;
// With fewer queries a page transposing its keys costs more than it saves.
constexpr int64_t MIN_BLOCK_QUERIES = 16;

// Tokens of one sequence within one page: they read the same stored pages, and of their own one what came before.
struct Span {
  int64_t sequence, first_row, num_rows, own_page, open_page, first_offset;
};

// A part of a span's history for one KV head; its states begin at `first_state`.
struct Task {
  int64_t span, kv_head, first_page, end_page, first_state;
};

struct Call {
  const Pool& pool;
  const Batch& batch;
  int64_t layer;
  float scale;
  const float* query;
  int64_t token_stride, head_stride, num_heads;
  float* output;

  int64_t group() const { return num_heads / pool.num_kv_heads; }
  int64_t record(int64_t page, int64_t kv_head) const {
    return (page * pool.num_layers + layer) * pool.num_kv_heads + kv_head;
  }
};

std::vector<Span> spans_of(const Call& call) {
  const Batch& batch = call.batch;
  std::vector<Span> spans;
  for (int64_t sequence = 0; sequence < batch.num_sequences; ++sequence) {
    const int64_t start = batch.query_starts[sequence], num_new = batch.query_starts[sequence + 1] - start;
    const int64_t first_position = batch.lengths[sequence] - num_new, first_page = first_position / PAGE_SIZE;
    for (int64_t done = 0; done < num_new;) {
      const int64_t position = first_position + done, offset = position % PAGE_SIZE, page = position / PAGE_SIZE;
      const int64_t num_rows = std::min(num_new - done, PAGE_SIZE - offset);
      const int64_t open_page = batch.open_pages[sequence * batch.num_open_pages + page - first_page];
      spans.push_back({sequence, start + done, num_rows, page, open_page, offset});
      done += num_rows;
    }
  }
  return spans;
}

// All tasks, those of one span and KV head next to each other; `groups` gets where each such group begins, and the end.
std::vector<Task> tasks_of(const Call& call, const std::vector<Span>& spans, std::vector<int64_t>& groups) {
  std::vector<Task> tasks;
  int64_t num_states = 0;
  for (size_t index = 0; index < spans.size(); ++index)
    for (int64_t kv_head = 0; kv_head < call.pool.num_kv_heads; ++kv_head) {
      groups.push_back(tasks.size());
      const int64_t num_pages = spans[index].own_page + 1;
      for (int64_t page = 0; page < num_pages; page += TASK_PAGES) {
        const int64_t end = std::min(page + TASK_PAGES, num_pages);
        tasks.push_back({static_cast<int64_t>(index), kv_head, page, end, num_states});
        num_states += spans[index].num_rows * call.group();
      }
    }
  groups.push_back(tasks.size());
  return tasks;
}

template <int HEAD_DIM>
PageView page_view(const Call& call, const Span& span, const Task& task, int64_t page, Buffers<HEAD_DIM>& buffers) {
  if (page == span.own_page) {
    const int num_tokens = static_cast<int>(span.first_offset + span.num_rows);
    return raw_view(call.pool, call.record(span.open_page, task.kv_head), num_tokens, buffers);
  }
  const int64_t entry = span.sequence * call.batch.num_pages + page;
  const int64_t record = call.record(call.batch.page_tables[entry], task.kv_head);
  if (call.batch.page_kinds[entry] == SEALED) return sealed_view(call.pool, record, buffers);
  return raw_view(call.pool, record, PAGE_SIZE, buffers);
}

// All queries of a task over one page. In their own page, where the first one's token lies at `own_offset`, each reads
// what came before; of an earlier page, for which that is negative, they read everything.
template <int HEAD_DIM>
void visit_all(const PageView& page, int64_t num_queries, int64_t group, int64_t own_offset, const float* queries,
               State<HEAD_DIM>* states, Buffers<HEAD_DIM>& buffers) {
  const auto num_tokens = [&](int64_t index) {
    return own_offset < 0 ? PAGE_SIZE : static_cast<int>(own_offset + index / group + 1);
  };
  int64_t index = 0;
  if (num_queries >= MIN_BLOCK_QUERIES) {
    transpose_keys<HEAD_DIM>(page, buffers.transposed);
    for (; index + BLOCK <= num_queries; index += BLOCK) {
      const int counts[BLOCK] = {num_tokens(index), num_tokens(index + 1), num_tokens(index + 2), num_tokens(index + 3)};
      visit_block<HEAD_DIM>(page, buffers.transposed, counts, queries + index * HEAD_DIM, states + index);
    }
  }
  for (; index < num_queries; ++index)
    visit<HEAD_DIM>(page, num_tokens(index), queries + index * HEAD_DIM, states[index]);
}

template <int HEAD_DIM>
void run_task(const Call& call, const Span& span, const Task& task, State<HEAD_DIM>* states,
              Buffers<HEAD_DIM>& buffers) {
  const int64_t group = call.group(), num_queries = span.num_rows * group;
  std::vector<float> queries(num_queries * HEAD_DIM);
  for (int64_t index = 0; index < num_queries; ++index) {
    const int64_t row = span.first_row + index / group, head = task.kv_head * group + index % group;
    const float* source = call.query + row * call.token_stride + head * call.head_stride;
    for (int d = 0; d < HEAD_DIM; ++d) queries[index * HEAD_DIM + d] = source[d] * call.scale;
  }
  for (int64_t page = task.first_page; page < task.end_page; ++page) {
    const PageView view = page_view(call, span, task, page, buffers);
    const bool is_own = page == span.own_page;
    visit_all<HEAD_DIM>(view, num_queries, group, is_own ? span.first_offset : -1, queries.data(),
                        states + task.first_state, buffers);
  }
}

// Adds up what a group of tasks found for one of their queries, and turns rotated values back.
template <int HEAD_DIM>
void merge(const Call& call, const Span& span, const Task* tasks, int64_t num_tasks, int64_t index,
           const State<HEAD_DIM>* states) {
  const int64_t group = call.group(), row = span.first_row + index / group;
  float* output = call.output + (row * call.num_heads + tasks->kv_head * group + index % group) * HEAD_DIM;
  float largest = -INFINITY, total = 0;
  for (int64_t task = 0; task < num_tasks; ++task)
    largest = std::max(largest, states[tasks[task].first_state + index].largest);
  std::fill(output, output + HEAD_DIM, 0.0f);
  for (int64_t task = 0; task < num_tasks; ++task) {
    const State<HEAD_DIM>& state = states[tasks[task].first_state + index];
    const float weight = exponential(state.largest - largest);
    total += weight * state.total;
    for (int d = 0; d < HEAD_DIM; ++d) output[d] += weight * state.output[d];
  }
  for (int d = 0; d < HEAD_DIM; ++d) output[d] /= total;
  if (call.pool.rotates_values) rotate(output, HEAD_DIM);
}

template <int HEAD_DIM>
void attend(const Call& call) {
  const std::vector<Span> spans = spans_of(call);
  std::vector<int64_t> groups;
  const std::vector<Task> tasks = tasks_of(call, spans, groups);
  int64_t num_states = 0, num_visits = 0;
  for (const Task& task : tasks) {
    const int64_t num_queries = spans[task.span].num_rows * call.group();
    num_states += num_queries;
    num_visits += (task.end_page - task.first_page) * (1 + num_queries / 4);
  }
  std::vector<State<HEAD_DIM>> states(num_states);
  const int64_t num_tasks = tasks.size(), num_groups = groups.size() - 1;
#pragma omp parallel if (num_visits >= MIN_PARALLEL_VISITS)
  {
    Buffers<HEAD_DIM> buffers;
#pragma omp for schedule(dynamic)
    for (int64_t index = 0; index < num_tasks; ++index)
      run_task<HEAD_DIM>(call, spans[tasks[index].span], tasks[index], states.data(), buffers);
#pragma omp for schedule(static)
    for (int64_t index = 0; index < num_groups; ++index) {
      const Task* first = &tasks[groups[index]];
      const Span& span = spans[first->span];
      for (int64_t query = 0; query < span.num_rows * call.group(); ++query)
        merge<HEAD_DIM>(call, span, first, groups[index + 1] - groups[index], query, states.data());
    }
  }
}

}  // namespace
}  // namespace folio

extern "C" {

// Writes keys and values `[tokens, kv_heads, head_dim]` into raw pages. The last stride is 1, the others are given.
void folio_append(const Pool* pool, int64_t layer, int64_t num_tokens, const int64_t* slots, const float* keys,
                  int64_t key_token_stride, int64_t key_head_stride, const float* values, int64_t value_token_stride,
                  int64_t value_head_stride) {
  const int64_t head_dim = pool->head_dim, bytes = folio::element_bytes(pool->raw_dtype) * head_dim;
  std::vector<float> value(head_dim);
  for (int64_t token = 0; token < num_tokens; ++token) {
    const int64_t page = slots[token] / folio::PAGE_SIZE, offset = slots[token] % folio::PAGE_SIZE;
    for (int64_t kv_head = 0; kv_head < pool->num_kv_heads; ++kv_head) {
      const int64_t record = (page * pool->num_layers + layer) * pool->num_kv_heads + kv_head;
      char* stored = pool->raw + (record * 2 * folio::PAGE_SIZE + offset) * bytes;
      std::copy_n(values + token * value_token_stride + kv_head * value_head_stride, head_dim, value.data());
      if (pool->rotates_values) folio::rotate(value.data(), head_dim);
      folio::narrow(keys + token * key_token_stride + kv_head * key_head_stride, pool->raw_dtype, head_dim, stored);
      folio::narrow(value.data(), pool->raw_dtype, head_dim, stored + folio::PAGE_SIZE * bytes);
    }
  }
}

// Attention of every token over its history. `query` is `[tokens, heads, head_dim]` with a last stride of 1, `output` the
// same, contiguous.
void folio_attend(const Pool* pool, const Batch* batch, int64_t layer, float scale, const float* query,
                  int64_t token_stride, int64_t head_stride, int64_t num_heads, float* output) {
  const folio::Call call{*pool, *batch, layer, scale, query, token_stride, head_stride, num_heads, output};
  if (pool->head_dim == 64) folio::attend<64>(call);
  if (pool->head_dim == 128) folio::attend<128>(call);
  if (pool->head_dim == 256) folio::attend<256>(call);
}

}  // extern "C"
