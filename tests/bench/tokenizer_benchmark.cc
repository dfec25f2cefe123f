// Speed of the tokenizer, on one thread.
//
//   tokenizer_benchmark --tokenizer=DIR/tokenizer.json [--text=FILE]
//
// Without a text, each benchmark makes its own of 1 MB.  tokenizer_peer.py runs
// this and Hugging Face's tokenizers on the same text and prints the ratio.

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "benchmark/benchmark.h"
#include "common/read_file.h"
#include "common/tokens.h"
#include "router/text/tokenizer.h"

namespace lapidary {
namespace {

constexpr size_t kTextBytes = 1 << 20;

std::string Repeat(absl::string_view part) {
  std::string text;
  while (text.size() < kTextBytes) text.append(part.data(), part.size());
  return text;
}

void Encode(benchmark::State& state, const Tokenizer& tokenizer,
            const std::string& text) {
  size_t num_tokens = 0;
  for (auto _ : state) num_tokens = tokenizer.Encode(text).size();
  state.SetBytesProcessed(state.iterations() * text.size());
  state.counters["tokens"] = static_cast<double>(num_tokens);
}

void Decode(benchmark::State& state, const Tokenizer& tokenizer,
            const std::string& text) {
  const std::vector<TokenId> ids = tokenizer.Encode(text);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.Decode(ids));
  state.SetBytesProcessed(state.iterations() * text.size());
}

void Load(benchmark::State& state, const std::string& path) {
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::Load(path).ok());
}

void Register(const std::string& name, const Tokenizer& tokenizer,
              const std::string& text) {
  benchmark::RegisterBenchmark(
      ("encode/" + name).c_str(),
      [&tokenizer, text](benchmark::State& s) { Encode(s, tokenizer, text); })
      ->Unit(benchmark::kMillisecond);
}

void RegisterAll(const std::string& path, const Tokenizer& tokenizer,
                 const std::string& text) {
  benchmark::RegisterBenchmark("load", [path](benchmark::State& s) {
    Load(s, path);
  })->Unit(benchmark::kMillisecond);
  if (!text.empty()) {
    Register("text", tokenizer, text);
    benchmark::RegisterBenchmark("decode/text", [&tokenizer,
                                                 text](benchmark::State& s) {
      Decode(s, tokenizer, text);
    })->Unit(benchmark::kMillisecond);
    return;
  }
  Register("sentence", tokenizer,
           Repeat("The quick brown fox jumps over the lazy dog.\n"));
  Register("letter", tokenizer, Repeat("a"));
  Register("spaces", tokenizer, Repeat(" "));
  Register("newlines", tokenizer, Repeat("\n"));
  Register("emoji", tokenizer, Repeat("😊"));
  Register("bytes", tokenizer, Repeat("𒀀"));
}

// The value of `flag`, taken out of the arguments; empty if it is not there.
std::string TakeFlag(absl::string_view flag, int& argc, char** argv) {
  std::string value;
  int kept = 0;
  for (int i = 0; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, flag)) {
      value = std::string(argument);
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return value;
}

int Main(int argc, char** argv) {
  const std::string path = TakeFlag("--tokenizer=", argc, argv);
  const std::string text_path = TakeFlag("--text=", argc, argv);
  const auto tokenizer = Tokenizer::Load(path);
  if (!tokenizer.ok()) {
    std::cerr << "--tokenizer=FILE: " << tokenizer.status().message()
              << std::endl;
    return 1;
  }
  absl::StatusOr<std::string> text("");
  if (!text_path.empty()) text = ReadFile(text_path);
  if (!text.ok()) {
    std::cerr << "--text=FILE: " << text.status().message() << std::endl;
    return 1;
  }
  RegisterAll(path, **tokenizer, *text);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) { return lapidary::Main(argc, argv); }
