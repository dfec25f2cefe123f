#include "worker/schedule/step_plan.h"

#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace lapidary {
namespace {

// plan      = magic:u32 layout:u32 step:i64 planned_nanoseconds:i64
//             replica_tokens:i32 counts tokens global window rows range_ends
// counts    = sequences:u32 tokens:u32 global_pages:u32 window_pages:u32
//             logit_rows:u32 range_ends:u32
// the rest  = SequenceStep fields in their order (id:i64, others i32), then the
//             vectors as i32
constexpr uint32_t kMagic = 0x3250534c;  // "LSP2"
constexpr size_t kSequenceBytes = sizeof(int64_t) + 8 * sizeof(int32_t);

class Writer {
 public:
  explicit Writer(size_t num_bytes) { bytes_.reserve(num_bytes); }

  template <typename Integer>
  void Put(Integer value) {
    auto bits = static_cast<std::make_unsigned_t<Integer>>(value);
    for (size_t i = 0; i < sizeof(bits); ++i) {
      bytes_.push_back(static_cast<char>(bits >> (8 * i) & 0xff));
    }
  }

  void PutAll(std::span<const int32_t> values) {
    for (const int32_t value : values) Put(value);
  }

  std::string Finish() && { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// REQUIRES: the caller has checked that there are enough bytes.
class Reader {
 public:
  explicit Reader(absl::string_view bytes) : rest_(bytes) {}

  size_t num_left() const { return rest_.size(); }

  template <typename Integer>
  Integer Get() {
    std::make_unsigned_t<Integer> bits = 0;
    for (size_t i = 0; i < sizeof(bits); ++i) {
      const auto byte = static_cast<unsigned char>(rest_[i]);
      bits |= static_cast<std::make_unsigned_t<Integer>>(byte) << (8 * i);
    }
    rest_.remove_prefix(sizeof(bits));
    return static_cast<Integer>(bits);
  }

  void GetAll(uint32_t count, std::vector<int32_t>& values) {
    values.resize(count);
    for (int32_t& value : values) value = Get<int32_t>();
  }

 private:
  absl::string_view rest_;
};

struct Counts {
  uint32_t sequences = 0;
  uint32_t tokens = 0;
  uint32_t global_pages = 0;
  uint32_t window_pages = 0;
  uint32_t logit_rows = 0;
  uint32_t range_ends = 0;

  // What follows them.  Fits: six 32-bit counts of at most 40 bytes.
  uint64_t num_bytes() const {
    return uint64_t{sequences} * kSequenceBytes +
           sizeof(int32_t) * (uint64_t{tokens} + global_pages + window_pages +
                              logit_rows + range_ends);
  }
};

constexpr size_t kHeaderBytes =
    3 * sizeof(uint32_t) + 2 * sizeof(int64_t) + sizeof(Counts);

SequenceStep GetSequence(Reader& reader) {
  SequenceStep step;
  step.sequence = reader.Get<int64_t>();
  for (int* field :
       {&step.start, &step.num_tokens, &step.first_token,
        &step.first_global_page, &step.num_global_pages, &step.window_base,
        &step.first_window_page, &step.num_window_pages}) {
    *field = reader.Get<int32_t>();
  }
  return step;
}

// Whether [first, first + count) lies in a vector of `size`.
bool InRange(int first, int count, size_t size) {
  return first >= 0 && count >= 0 &&
         int64_t{first} + count <= static_cast<int64_t>(size);
}

absl::Status Malformed(const SequenceStep& step, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrFormat("step plan: sequence %d: %s", step.sequence, what));
}

// `next_token` is where its tokens have to begin: rows are dense.
absl::Status CheckSequence(const StepPlan& plan, const SequenceStep& step,
                           int64_t next_token) {
  if (step.num_tokens <= 0 || step.first_token != next_token ||
      !InRange(step.first_token, step.num_tokens, plan.tokens.size())) {
    return Malformed(step, absl::StrFormat("tokens [%d, +%d) of %d, not at %d",
                                           step.first_token, step.num_tokens,
                                           plan.tokens.size(), next_token));
  }
  if (!InRange(step.first_global_page, step.num_global_pages,
               plan.global_pages.size())) {
    return Malformed(
        step,
        absl::StrFormat("global pages [%d, +%d) of %d", step.first_global_page,
                        step.num_global_pages, plan.global_pages.size()));
  }
  if (!InRange(step.first_window_page, step.num_window_pages,
               plan.window_pages.size())) {
    return Malformed(
        step,
        absl::StrFormat("window pages [%d, +%d) of %d", step.first_window_page,
                        step.num_window_pages, plan.window_pages.size()));
  }
  const int64_t end = int64_t{step.start} + step.num_tokens;
  const int64_t global_end = int64_t{kPageTokens} * step.num_global_pages;
  if (step.start < 0 || end > global_end) {
    return Malformed(
        step, absl::StrFormat("positions [%d, %d), global pages end at %d",
                              step.start, end, global_end));
  }
  const int64_t window_end =
      kPageTokens * (int64_t{step.window_base} + step.num_window_pages);
  if (step.window_base < 0 ||
      int64_t{kPageTokens} * step.window_base > step.start ||
      end > window_end) {
    return Malformed(
        step, absl::StrFormat(
                  "positions [%d, %d), window pages from %d to %d", step.start,
                  end, int64_t{kPageTokens} * step.window_base, window_end));
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const char* what, std::span<const int32_t> ids, int first,
                      int end) {
  for (const int32_t id : ids) {
    if (id < first || id >= end) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "step plan: needs %s from %d to %d, has %d", what, first, end, id));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckHeadSplit(const StepPlan& plan, const PlanLimits& limits) {
  const auto num_tokens = static_cast<int64_t>(plan.tokens.size());
  if (num_tokens > limits.max_step_tokens || !plan.range_ends.empty() ||
      plan.replica_tokens != kNoReplica) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "step plan: needs at most %d tokens, no ranges and no replica under "
        "head split, has %d tokens, %d ranges, replica %d",
        limits.max_step_tokens, num_tokens, plan.range_ends.size(),
        plan.replica_tokens));
  }
  return absl::OkStatus();
}

absl::Status CheckTokenSplit(const StepPlan& plan, const PlanLimits& limits) {
  if (plan.sequences.size() != 1 ||
      static_cast<int>(plan.range_ends.size()) != limits.num_ranks) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "step plan: needs one sequence and %d ranges, has %d and %d",
        limits.num_ranks, plan.sequences.size(), plan.range_ends.size()));
  }
  const SequenceStep& step = plan.sequences.front();
  const int end = step.start + step.num_tokens;
  int begin = step.start;
  for (const int range_end : plan.range_ends) {
    if (range_end < begin || range_end > end ||
        range_end - begin > limits.max_range_tokens) {
      return Malformed(
          step,
          absl::StrFormat("range [%d, %d) of at most %d, the round ends "
                          "at %d",
                          begin, range_end, limits.max_range_tokens, end));
    }
    begin = range_end;
  }
  if (begin != end) {
    return Malformed(
        step, absl::StrFormat("ranges end at %d, the round at %d", begin, end));
  }
  const int replica = plan.replica_tokens;
  if (replica != kNoReplica &&
      (replica < 0 || replica > step.start ||
       (end + kPageTokens - 1) / kPageTokens > limits.replica_pages)) {
    return Malformed(
        step, absl::StrFormat("replica of %d tokens, round [%d, %d), %d pages",
                              replica, step.start, end, limits.replica_pages));
  }
  return absl::OkStatus();
}

absl::Status Check(const StepPlan& plan, const PlanLimits& limits) {
  int64_t next_token = 0;
  for (const SequenceStep& step : plan.sequences) {
    const absl::Status status = CheckSequence(plan, step, next_token);
    if (!status.ok()) return status;
    next_token += step.num_tokens;
  }
  if (next_token != static_cast<int64_t>(plan.tokens.size())) {
    return absl::InvalidArgumentError(
        absl::StrFormat("step plan: %d tokens, the sequences have %d",
                        plan.tokens.size(), next_token));
  }
  int last = -1;
  for (const int row : plan.logit_rows) {
    if (row <= last || row >= next_token) {
      return absl::InvalidArgumentError(
          absl::StrFormat("step plan: logit row %d after %d, of %d rows", row,
                          last, next_token));
    }
    last = row;
  }
  absl::Status status = plan.layout == Layout::kHeadSplit
                            ? CheckHeadSplit(plan, limits)
                            : CheckTokenSplit(plan, limits);
  status.Update(CheckIds("tokens", plan.tokens, 0, limits.vocab_size));
  status.Update(
      CheckIds("global pages", plan.global_pages, 0, limits.global_pages));
  status.Update(CheckIds("window pages", plan.window_pages, kNoPage,
                         limits.window_pages));
  return status;
}

}  // namespace

void StepPlan::Clear() {
  step = 0;
  layout = Layout::kHeadSplit;
  sequences.clear();
  tokens.clear();
  global_pages.clear();
  window_pages.clear();
  logit_rows.clear();
  range_ends.clear();
  replica_tokens = kNoReplica;
  planned_time = absl::ZeroDuration();
}

std::string EncodeStepPlan(const StepPlan& plan) {
  const Counts counts = {
      .sequences = static_cast<uint32_t>(plan.sequences.size()),
      .tokens = static_cast<uint32_t>(plan.tokens.size()),
      .global_pages = static_cast<uint32_t>(plan.global_pages.size()),
      .window_pages = static_cast<uint32_t>(plan.window_pages.size()),
      .logit_rows = static_cast<uint32_t>(plan.logit_rows.size()),
      .range_ends = static_cast<uint32_t>(plan.range_ends.size())};
  Writer writer(kHeaderBytes + counts.num_bytes());
  writer.Put(kMagic);
  writer.Put(static_cast<uint32_t>(plan.layout));
  writer.Put(plan.step);
  writer.Put(absl::ToInt64Nanoseconds(plan.planned_time));
  writer.Put(plan.replica_tokens);
  for (const uint32_t count :
       {counts.sequences, counts.tokens, counts.global_pages,
        counts.window_pages, counts.logit_rows, counts.range_ends}) {
    writer.Put(count);
  }
  for (const SequenceStep& step : plan.sequences) {
    writer.Put(step.sequence);
    for (const int field :
         {step.start, step.num_tokens, step.first_token, step.first_global_page,
          step.num_global_pages, step.window_base, step.first_window_page,
          step.num_window_pages}) {
      writer.Put(field);
    }
  }
  writer.PutAll(plan.tokens);
  writer.PutAll(plan.global_pages);
  writer.PutAll(plan.window_pages);
  writer.PutAll(plan.logit_rows);
  writer.PutAll(plan.range_ends);
  return std::move(writer).Finish();
}

absl::StatusOr<StepPlan> DecodeStepPlan(absl::string_view bytes,
                                        const PlanLimits& limits) {
  if (bytes.size() < kHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("step plan: needs a header of %d bytes, has %d",
                        kHeaderBytes, bytes.size()));
  }
  Reader reader(bytes);
  const auto magic = reader.Get<uint32_t>();
  const auto layout = reader.Get<uint32_t>();
  if (magic != kMagic || layout > static_cast<uint32_t>(Layout::kTokenSplit)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "step plan: needs magic %08x and layout 0 or 1, has %08x and %d",
        kMagic, magic, layout));
  }
  StepPlan plan;
  plan.layout = static_cast<Layout>(layout);
  plan.step = reader.Get<int64_t>();
  plan.planned_time = absl::Nanoseconds(reader.Get<int64_t>());
  plan.replica_tokens = reader.Get<int32_t>();
  Counts counts;
  for (uint32_t* count :
       {&counts.sequences, &counts.tokens, &counts.global_pages,
        &counts.window_pages, &counts.logit_rows, &counts.range_ends}) {
    *count = reader.Get<uint32_t>();
  }
  if (reader.num_left() != counts.num_bytes()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("step plan: needs %d bytes after the header, has %d",
                        counts.num_bytes(), reader.num_left()));
  }
  plan.sequences.reserve(counts.sequences);
  for (uint32_t i = 0; i < counts.sequences; ++i) {
    plan.sequences.push_back(GetSequence(reader));
  }
  reader.GetAll(counts.tokens, plan.tokens);
  reader.GetAll(counts.global_pages, plan.global_pages);
  reader.GetAll(counts.window_pages, plan.window_pages);
  reader.GetAll(counts.logit_rows, plan.logit_rows);
  reader.GetAll(counts.range_ends, plan.range_ends);
  const absl::Status status = Check(plan, limits);
  if (!status.ok()) return status;
  return plan;
}

}  // namespace lapidary
