#include "tests/integration/ask.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/grpc_status.h"
#include "glog/logging.h"
#include "grpcpp/generic/generic_stub.h"
#include "router/text/tokenizer.h"
#include "tools/document_builder.h"
#include "tools/recall_rule.h"

namespace lapidary {
namespace {

// A reproducible text that repeats its words but not its sentences.
std::vector<Paragraph> MadeUpParagraphs() {
  constexpr absl::string_view kWords[] = {
      "river",  "stone", "keeps", "under", "lantern", "the",   "market",
      "quiet",  "seven", "boats", "north", "carries", "a",     "letter",
      "winter", "glass", "turns", "from",  "copper",  "field", "without"};
  std::vector<Paragraph> paragraphs;
  uint32_t state = 12345;
  const auto next = [&state](uint32_t bound) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % bound;
  };
  for (int p = 0; p < 400; ++p) {
    Paragraph paragraph;
    for (uint32_t sentences = 1 + next(4); sentences > 0; --sentences) {
      std::string sentence = "Here";
      for (uint32_t words = 6 + next(14); words > 0; --words) {
        absl::StrAppend(&sentence, " ", kWords[next(std::size(kWords))]);
      }
      paragraph.push_back(absl::StrCat(sentence, " ", next(10000), "."));
    }
    paragraphs.push_back(paragraph);
  }
  return paragraphs;
}

void SetGreedy(v1::GenerateRequest& request) {
  request.mutable_sampling()->set_temperature(0);
  request.set_max_tokens(64);
}

}  // namespace

std::string DocumentWithFact(int tokens, double depth_percent) {
  static const Tokenizer& tokenizer =
      *Tokenizer::Load("tests/testdata/tokenizer/mini/tokenizer.json")
           .value()
           .release();
  const auto document =
      BuildDocument(MadeUpParagraphs(), tokenizer,
                    {.tokens = tokens,
                     .depth_percent = depth_percent,
                     .fact = absl::StrCat(kQuestion, " ", kAnswer)});
  CHECK(document.ok()) << document.status();
  const auto answer = RecallAnswer(tokenizer, document->text, kQuestion);
  CHECK(answer.ok() && *answer == kAnswer) << answer.status();
  return document->text;
}

v1::GenerateRequest ChatRequest(absl::string_view text) {
  v1::GenerateRequest request;
  v1::Message& message = *request.mutable_conversation()->add_messages();
  message.set_role("user");
  message.add_content()->set_text(std::string(text));
  SetGreedy(request);
  return request;
}

v1::GenerateRequest TextRequest(absl::string_view text) {
  v1::GenerateRequest request;
  request.mutable_text()->set_text(std::string(text));
  SetGreedy(request);
  return request;
}

v1::GenerateRequest EndlessRequest(int tokens) {
  v1::GenerateRequest request = ChatRequest("Tell me everything.");
  request.set_max_tokens(tokens);
  request.set_ignore_eos(true);
  return request;
}

Reply Ask(v1::Inference::Stub& stub, const v1::GenerateRequest& request,
          const std::function<void(grpc::ClientContext&)>& on_first_delta,
          absl::Duration deadline, const std::string& request_id) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
  if (!request_id.empty()) context.AddMetadata("x-request-id", request_id);
  const auto reader = stub.Generate(&context, request);
  Reply reply;
  bool has_delta = false;
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_progress()) reply.progress.push_back(response.progress());
    if (response.has_completed()) reply.completed = response.completed();
    if (!response.has_delta()) continue;
    reply.text += response.delta().text();
    reply.token_ids.insert(reply.token_ids.end(),
                           response.delta().token_ids().begin(),
                           response.delta().token_ids().end());
    if (!has_delta && on_first_delta) on_first_delta(context);
    has_delta = true;
  }
  reply.status = FromGrpcStatus(reader->Finish());
  const auto& trailer = context.GetServerTrailingMetadata();
  if (const auto it = trailer.find("x-request-id"); it != trailer.end()) {
    reply.request_id = std::string(it->second.data(), it->second.size());
  }
  return reply;
}

absl::StatusOr<std::string> CallRaw(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
    absl::string_view request) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Minutes(1)));
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, method, &queue);
  const auto wait = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  call->StartCall(nullptr);
  wait();
  const grpc::Slice slice(request.data(), request.size());
  const grpc::ByteBuffer message(&slice, 1);
  call->WriteLast(message, grpc::WriteOptions(), nullptr);
  wait();
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  const bool answered = wait();
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
  queue.Shutdown();
  while (wait()) {
  }
  if (!answered) return FromGrpcStatus(status);
  std::vector<grpc::Slice> slices;
  if (!answer.Dump(&slices).ok()) return absl::InternalError("empty answer");
  std::string bytes;
  for (const grpc::Slice& part : slices) {
    bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  return bytes;
}

}  // namespace lapidary
