#include "common/metrics.h"

#include <exception>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/address.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "prometheus/exposer.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"

namespace lapidary {
namespace {

// Calls `add`, which throws for names that Prometheus does not allow.
template <typename Add>
auto& CheckedAdd(const std::string& name, const Add& add) {
  try {
    return add();
  } catch (const std::exception& error) {
    LOG(FATAL) << "metric " << name << ": " << error.what();
  }
}

// Threads that answer scrapes.
constexpr size_t kPageThreads = 2;

}  // namespace

Metrics::Metrics() : registry_(std::make_shared<prometheus::Registry>()) {}
Metrics::~Metrics() = default;

Counter& Metrics::AddCounter(const std::string& name, const std::string& help,
                             const Labels& labels) {
  return CheckedAdd(name, [&]() -> Counter& {
    return prometheus::BuildCounter()
        .Name(name)
        .Help(help)
        .Register(*registry_)
        .Add(labels);
  });
}

Gauge& Metrics::AddGauge(const std::string& name, const std::string& help,
                         const Labels& labels) {
  return CheckedAdd(name, [&]() -> Gauge& {
    return prometheus::BuildGauge()
        .Name(name)
        .Help(help)
        .Register(*registry_)
        .Add(labels);
  });
}

Histogram& Metrics::AddHistogram(const std::string& name,
                                 const std::string& help,
                                 const std::vector<double>& buckets,
                                 const Labels& labels) {
  return CheckedAdd(name, [&]() -> Histogram& {
    return prometheus::BuildHistogram()
        .Name(name)
        .Help(help)
        .Register(*registry_)
        .Add(labels, buckets);
  });
}

std::string Metrics::Text() const {
  return prometheus::TextSerializer().Serialize(registry_->Collect());
}

std::vector<double> RequestSecondsBuckets() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
}

std::vector<double> TokenSecondsBuckets() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
          0.2,   0.3,    0.4,   0.5,  0.75,  1,    2.5,   5,   10};
}

std::vector<double> TokenCountBuckets() {
  return {1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144};
}

std::vector<double> BatchSizeBuckets() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
}

MetricsPage::MetricsPage(std::string address,
                         std::unique_ptr<prometheus::Exposer> exposer,
                         std::shared_ptr<prometheus::Registry> registry)
    : address_(std::move(address)),
      registry_(std::move(registry)),
      exposer_(std::move(exposer)) {
  exposer_->RegisterCollectable(registry_);
}

MetricsPage::~MetricsPage() = default;

absl::StatusOr<std::unique_ptr<MetricsPage>> MetricsPage::Serve(
    const std::string& address, const Metrics& metrics) {
  RETURN_IF_ERROR(CheckListenAddress("the metrics page", address));
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(address, kPageThreads);
    const std::vector<int> ports = exposer->GetListeningPorts();
    CHECK(!ports.empty());
    std::string bound =
        absl::StrCat(address.substr(0, address.rfind(':')), ":", ports[0]);
    return std::unique_ptr<MetricsPage>(new MetricsPage(
        std::move(bound), std::move(exposer), metrics.registry_));
  } catch (const std::exception&) {  // Its message names no cause.
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address,
                     " for metrics: the port is in use, or the address is not "
                     "one of this machine's"));
  }
}

}  // namespace lapidary
