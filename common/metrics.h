// Prometheus metrics: where they are kept, and the page that shows them.
//
//   Metrics metrics;
//   Counter& requests = metrics.AddCounter(
//       "lapidary_router_requests_total", "Requests received.");
//   requests.Increment();
//   ASSIGN_OR_RETURN(auto page, MetricsPage::Serve("127.0.0.1:0", metrics));
//   LOG(INFO) << "metrics at http://" << page->address() << "/metrics";
//
// Names are lapidary_worker_* and lapidary_router_*, with the unit at the end
// (_seconds, _bytes, _tokens) and _total on counters.  Values are printed with
// six decimals.  docs/metrics.md lists every metric.

#ifndef COMMON_METRICS_H_
#define COMMON_METRICS_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"

namespace prometheus {
class Exposer;
class Registry;
}  // namespace prometheus

namespace lapidary {

// Thread-safe: Increment(), Set(), Observe().
using Counter = prometheus::Counter;
using Gauge = prometheus::Gauge;
using Histogram = prometheus::Histogram;

// The metrics of one process.  Thread-safe.  References that it returns live as
// long as it does.  One name may be added several times with different labels,
// and with the same labels gives the same metric; a bad name, or a name that
// has another type already, is a CHECK.
class Metrics {
 public:
  using Labels = std::map<std::string, std::string>;

  Metrics();
  ~Metrics();

  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  Counter& AddCounter(const std::string& name, const std::string& help,
                      const Labels& labels = {});
  Gauge& AddGauge(const std::string& name, const std::string& help,
                  const Labels& labels = {});
  // `buckets`: upper bounds, ascending; a last one at infinity is implied.
  Histogram& AddHistogram(const std::string& name, const std::string& help,
                          const std::vector<double>& buckets,
                          const Labels& labels = {});

  // The page's text, as a scrape returns it.
  std::string Text() const;

 private:
  friend class MetricsPage;
  const std::shared_ptr<prometheus::Registry> registry_;  // With the page.
};

// Buckets that all parts share, so that their histograms can be compared.

// 1 ms … 2560 s: times of whole requests, up to the prefill of 256K tokens.
std::vector<double> RequestSecondsBuckets();
// 1 ms … 10 s: from one token to the next.
std::vector<double> TokenSecondsBuckets();
// 1 … 262144, by fours: tokens of a request.
std::vector<double> TokenCountBuckets();
// 1 … 1024, by twos: requests in a batch.
std::vector<double> BatchSizeBuckets();

// Serves GET /metrics from threads of its own, until destruction.
class MetricsPage {
 public:
  // `address` is HOST:PORT; port 0 takes a free one.
  //
  // Errors: INVALID_ARGUMENT if that is no address; UNAVAILABLE if it cannot be
  // listened on.
  static absl::StatusOr<std::unique_ptr<MetricsPage>> Serve(
      const std::string& address, const Metrics& metrics);
  ~MetricsPage();

  // HOST:PORT that is listened on.
  const std::string& address() const { return address_; }

 private:
  MetricsPage(std::string address, std::unique_ptr<prometheus::Exposer> exposer,
              std::shared_ptr<prometheus::Registry> registry);

  const std::string address_;
  const std::shared_ptr<prometheus::Registry> registry_;  // With the Metrics.
  const std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace lapidary

#endif  // COMMON_METRICS_H_
