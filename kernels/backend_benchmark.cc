// Times the operations that take a model's time, on the shapes of the 12B, and
// the machine's ceilings beside them.
//
// One JSON line a case.  Every sample of an operation is followed by one of
// each probe, and what is printed is the median of the samples' ratios: other
// load on the machine changes both alike.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/command_line.h"
#include "common/tokens.h"
#include "dnnl.hpp"
#include "glog/logging.h"
#include "kernels/attention.h"
#include "kernels/backend.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/probes.h"
#include "kernels/tensor.h"
#include "nlohmann/json.hpp"

ABSL_FLAG(int, threads, 0, "threads; 0 is all cores");
ABSL_FLAG(std::string, isa, "auto", "instruction set");
ABSL_FLAG(int, samples, 7, "samples of each case");
ABSL_FLAG(std::string, filter, "", "cases whose name contains this");
ABSL_FLAG(bool, peer, true, "also time oneDNN's matmul");

namespace lapidary {
namespace {

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2,
                   values.end());
  return values[values.size() / 2];
}

double Seconds(absl::FunctionRef<void()> work) {
  const absl::Time start = absl::Now();
  work();
  return absl::ToDoubleSeconds(absl::Now() - start);
}

// Small random numbers: zeros would be kind to some machines.
void FillRandom(Bf16* data, int64_t size) {
  std::mt19937 random(7);
  for (int64_t i = 0; i < size; ++i) {
    const float value = static_cast<int32_t>(random()) * 0x1p-32f;
    data[i] = ToBf16(value);
  }
}

// oneDNN's matmul of bf16, with weights in the form that it likes best.
class DnnlMatMul {
 public:
  DnnlMatMul(const Bf16* x, const Bf16* w, int rows, int out, int in)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using dnnl::memory;
    const auto bf16 = memory::data_type::bf16;
    const memory::desc x_desc({rows, in}, bf16, memory::format_tag::ab);
    const memory::desc w_any({in, out}, bf16, memory::format_tag::any);
    const memory::desc w_desc({in, out}, bf16, memory::format_tag::ba);
    const memory::desc out_desc({rows, out}, bf16, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc description(
        dnnl::matmul::desc(x_desc, w_any, out_desc), engine_);
    memory plain(w_desc, engine_, const_cast<Bf16*>(w));
    memory packed(description.weights_desc(), engine_);
    dnnl::reorder(plain, packed).execute(stream_, plain, packed);
    matmul_ = dnnl::matmul(description);
    arguments_ = {{DNNL_ARG_SRC, memory(x_desc, engine_, const_cast<Bf16*>(x))},
                  {DNNL_ARG_WEIGHTS, packed},
                  {DNNL_ARG_DST, memory(out_desc, engine_)}};
    stream_.wait();
  }

  void Run() {
    matmul_.execute(stream_, arguments_);
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

class Benchmark {
 public:
  explicit Benchmark(const CpuOptions& options)
      : backend_(NewCpuBackend(options).value()),
        probes_(NewProbes(options).value()) {}

  void MatMul(int rows, int out, int in);
  void Attend(const std::string& layer, int heads, int kv_heads, int head_dim,
              int key_half, int window, int start, int tokens);
  void Rows(int rows);

 private:
  // Memory of the backend, with random bf16 numbers, kept to the end.
  Bf16* Numbers(int64_t size) {
    auto* data =
        static_cast<Bf16*>(backend_->Allocate(size * sizeof(Bf16)).value());
    FillRandom(data, size);
    return data;
  }
  void Free(std::initializer_list<void*> memory) {
    for (void* m : memory) backend_->Free(m);
  }

  // Prints the case's time and its shares of the ceilings.
  void Report(const std::string& name, double flops, double bytes,
              absl::FunctionRef<void(int sample)> work,
              absl::FunctionRef<void()> peer);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Probes> probes_;
};

bool Selected(const std::string& name) {
  return absl::StrContains(name, absl::GetFlag(FLAGS_filter));
}

void Benchmark::Report(const std::string& name, double flops, double bytes,
                       absl::FunctionRef<void(int sample)> work,
                       absl::FunctionRef<void()> peer) {
  std::vector<double> times, bandwidth, rate, read_share, dot_share, peer_times,
      peer_ratio;
  work(0);
  for (int i = 1; i <= absl::GetFlag(FLAGS_samples); ++i) {
    times.push_back(Seconds([&] { work(i); }));
    bandwidth.push_back(probes_->ReadBandwidth());
    rate.push_back(probes_->DotRate());
    read_share.push_back(bytes / times.back() / bandwidth.back());
    dot_share.push_back(flops / times.back() / rate.back());
    peer_times.push_back(Seconds(peer));
    peer_ratio.push_back(peer_times.back() / times.back());
  }
  nlohmann::ordered_json line = {
      {"case", name},
      {"milliseconds", Median(times) * 1e3},
      {"gflops", flops / Median(times) / 1e9},
      {"dot_rate_share", Median(dot_share)},
      {"gbytes_per_s", bytes / Median(times) / 1e9},
      {"bandwidth_share", Median(read_share)},
      {"probe_gflops", Median(rate) / 1e9},
      {"probe_gbytes_per_s", Median(bandwidth) / 1e9}};
  if (Median(peer_times) > 1e-6) {
    line["onednn_milliseconds"] = Median(peer_times) * 1e3;
    line["times_as_fast_as_onednn"] = Median(peer_ratio);
  }
  std::cout << line.dump() << std::endl;
}

void Benchmark::MatMul(int rows, int out, int in) {
  const std::string name = absl::StrCat("matmul ", rows, "x", out, "x", in);
  if (!Selected(name)) return;
  const int64_t size = int64_t{out} * in;
  // So many copies that none is still in the cache when its turn comes.
  constexpr int64_t kColdBytes = int64_t{128} << 20;
  const int copies =
      static_cast<int>(std::max<int64_t>(2, kColdBytes / (size * 2)));
  Bf16* w = Numbers(size * copies);
  Bf16* x = Numbers(int64_t{rows} * in);
  Bf16* y = Numbers(int64_t{rows} * out);
  std::unique_ptr<DnnlMatMul> peer;
  if (absl::GetFlag(FLAGS_peer)) {
    peer = std::make_unique<DnnlMatMul>(x, w, rows, out, in);
  }
  Report(
      name, 2.0 * rows * size, 2.0 * (size + int64_t{rows} * (in + out)),
      [&](int sample) {
        backend_->MatMul(
            {x, DType::kBf16, rows, in, in},
            {w + sample % copies * size, out, in, int64_t{16} * in},
            {y, DType::kBf16, rows, out, out});
      },
      [&] {
        if (peer != nullptr) peer->Run();
      });
  Free({w, x, y});
}

void Benchmark::Attend(const std::string& layer, int heads, int kv_heads,
                       int head_dim, int key_half, int window, int start,
                       int tokens) {
  const std::string name =
      absl::StrCat("attend ", layer, " ", tokens, " tokens at ", start);
  if (!Selected(name)) return;
  const int pages = NumPages(start + tokens);
  const int64_t page_values = int64_t{kv_heads} * kPageTokens * head_dim;
  const int64_t page_keys = int64_t{kv_heads} * kPageTokens * 2 * key_half;
  Bf16* values = Numbers(pages * page_values);
  Bf16* keys = Numbers(pages * page_keys);
  const int width = heads * head_dim;
  Bf16* q = Numbers(int64_t{tokens} * width);
  Bf16* out = Numbers(int64_t{tokens} * width);
  std::vector<PageId> table;
  for (int p = 0; p < pages; ++p) table.push_back(p);
  const AttentionSequence sequence = {.first_row = 0,
                                      .num_tokens = tokens,
                                      .start = start,
                                      .pages = table.data(),
                                      .first_page = 0,
                                      .num_pages = pages};
  double pairs = 0;  // Of a query token and a key that it sees.
  for (int t = start; t < start + tokens; ++t) {
    pairs += window == 0 ? t + 1 : std::min(t + 1, window);
  }
  const int seen =
      window == 0 ? start + tokens : std::min(start + tokens, window + tokens);
  Report(
      name, pairs * heads * head_dim * 4,
      2.0 * seen * kv_heads * (head_dim + 2 * key_half),
      [&](int) {
        backend_->Attend({.q = {q, DType::kBf16, tokens, width, width},
                          .planes = {.keys = keys,
                                     .values = values,
                                     .dtype = DType::kBf16,
                                     .kv_heads = kv_heads,
                                     .head_dim = head_dim,
                                     .key_half = key_half},
                          .step_keys = {},
                          .step_values = {},
                          .sequences = {&sequence, 1},
                          .num_heads = heads,
                          .window = window,
                          .out = {out, DType::kBf16, tokens, width, width}});
      },
      [] {});
  Free({values, keys, q, out});
}

void Benchmark::Rows(int rows) {
  constexpr int kHidden = 3840;
  constexpr int kInner = 15360;
  Bf16* x = Numbers(int64_t{rows} * 2 * kInner);
  Bf16* y = Numbers(int64_t{rows} * kInner);
  const Tensor hidden = {x, DType::kBf16, rows, kHidden, kHidden};
  const Tensor out = {y, DType::kBf16, rows, kHidden, kHidden};
  const std::string suffix = absl::StrCat(" ", rows, " rows");
  if (Selected("rms_norm" + suffix)) {
    Report(
        "rms_norm" + suffix, 0, 4.0 * rows * kHidden,
        [&](int) { backend_->RmsNorm(hidden, nullptr, 1e-6f, out); }, [] {});
  }
  if (Selected("add" + suffix)) {
    Report(
        "add" + suffix, 0, 6.0 * rows * kHidden,
        [&](int) { backend_->Add(hidden, out, 0.5f, out); }, [] {});
  }
  if (Selected("gelu_mul" + suffix)) {
    Report(
        "gelu_mul" + suffix, 0, 6.0 * rows * kInner,
        [&](int) {
          backend_->GeluMul({x, DType::kBf16, rows, 2 * kInner, 2 * kInner},
                            {y, DType::kBf16, rows, kInner, kInner});
        },
        [] {});
  }
  Free({x, y});
}

void Run() {
  Benchmark benchmark({.threads = absl::GetFlag(FLAGS_threads),
                       .isa = ParseIsa(absl::GetFlag(FLAGS_isa)).value()});
  for (const int rows : {1, 2, 4, 8, 16, 32, 64, 256, 512}) {
    benchmark.MatMul(rows, 15360, 3840);
    benchmark.MatMul(rows, 3840, 15360);
    benchmark.MatMul(rows, 8192, 3840);
    benchmark.MatMul(rows, 512, 3840);
  }
  for (const int tokens : {1, 8, 512}) {
    benchmark.Attend("global", 16, 1, 512, 64, 0, 8192, tokens);
    benchmark.Attend("global", 16, 1, 512, 64, 0, 65536, tokens);
    benchmark.Attend("window", 16, 8, 256, 128, 1024, 8192, tokens);
    benchmark.Attend("recall", 8, 1, 128, 16, 0, 65536, tokens);
    benchmark.Rows(tokens);
  }
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::ParseCommandLine(
      "times the backend's operations on the shapes of Gemma 4 12B beside the "
      "machine's ceilings.",
      argc, argv);
  lapidary::Run();
}
