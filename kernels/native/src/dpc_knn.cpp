// DPC-KNN of float32 tokens; kernels/dpc_knn/reference_backend.py is the specification.
//
// Distances |a|^2 + |b|^2 - 2ab are computed tile by tile in registers and used at once; no matrix of them is stored.
// They are symmetric bit for bit, so each is computed once and offered to the neighbour lists of both tokens. The list
// of a token's nearest neighbours usually gives its nearest denser token and its nearest centre as well: if a list
// holds a denser token, the nearest such one is the nearest of all, and if it holds a centre, the nearest such one is
// the nearest of all. Only the other tokens are compared again, with the denser tokens or with the centres.
//
// These distances suffer from cancellation, so they only select candidates. The distances to the candidates are
// computed again as sums of (a - b)^2 in float64, rounded to float32. Lists are a little longer than needed, because
// the order of the candidates may be wrong at the end.
//
// A list holds the k smallest (distance, index) pairs, whatever the order in which they were offered. Threads can
// therefore share the tiles of an image in any way.
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "parallel.h"
#include "simd.h"

namespace tcformer {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Tokens are stored in panels (C, kPanel): the first channel of all tokens, then their second. A tile of distances is
// between kRows tokens of one panel and all tokens of another; its sums stay in registers.
constexpr int kVectors = kManyRegisters ? 2 : 3;
constexpr int kPanel = kVectors * kLanes;
constexpr int kRows = kManyRegisters ? 8 : 4;
// Panels with this many floats in total stay in a core's second-level cache while others are compared with them.
constexpr int64_t kCachedFloats = 96 * 1024;
// As in kernels/dpc_knn/rounding.py: squared distances below this factor times the largest norm count as 0.
constexpr float kRoundingLimit = 16 * std::numeric_limits<float>::epsilon();
// Additional neighbours in each list.
constexpr int64_t kSpare = 2;

int64_t padded(int64_t tokens) { return ceil_div(tokens, kPanel) * kPanel; }

// Tokens in panels, and their squared norms, padded with zeros of infinite norm.
struct Panels {
  int64_t tokens = 0, channels = 0;
  Buffer<float> values, norms;
  float* data = nullptr;
  float* norm = nullptr;
  float rounding_limit = 0;  // squared distances below this count as 0

  void resize(int64_t num_tokens, int64_t num_channels) {
    tokens = num_tokens;
    channels = num_channels;
    data = values.get(padded(tokens) * channels);
    norm = norms.get(padded(tokens));
  }
  int64_t count() const { return ceil_div(tokens, kPanel); }
  const float* panel(int64_t p) const { return data + p * kPanel * channels; }
  int64_t cached() const { return std::max<int64_t>(1, kCachedFloats / (kPanel * channels)); }
};

// Fill panel `p` with rows of `x` (any, channels) minus `origin` (channels,). `row_of(i)` is the row of token i.
template <class RowOf>
void fill_panel(Panels& panels, int64_t p, const float* x, const float* origin, const RowOf& row_of) {
  constexpr int64_t kBlock = 16;
  const int64_t channels = panels.channels, here = std::min<int64_t>(kPanel, panels.tokens - p * kPanel);
  const float* rows[kPanel];
  for (int64_t l = 0; l < here; ++l) rows[l] = x + row_of(p * kPanel + l) * channels;
  float* out = panels.data + p * kPanel * channels;
  for (int64_t c0 = 0; c0 < channels; c0 += kBlock) {
    const int64_t c1 = std::min(channels, c0 + kBlock);
    for (int64_t l = 0; l < here; ++l)
      for (int64_t c = c0; c < c1; ++c) out[c * kPanel + l] = rows[l][c] - origin[c];
    for (int64_t l = here; l < kPanel; ++l)
      for (int64_t c = c0; c < c1; ++c) out[c * kPanel + l] = 0;
  }
  Vec sum[kVectors] = {};
  for (int64_t c = 0; c < channels; ++c)
    for (int v = 0; v < kVectors; ++v) {
      const Vec value = load(out + c * kPanel + v * kLanes);
      sum[v] += value * value;
    }
  float* norm = panels.norm + p * kPanel;
  for (int v = 0; v < kVectors; ++v) store(norm + v * kLanes, sum[v]);
  for (int64_t l = here; l < kPanel; ++l) norm[l] = kInfinity;
}

// Squared distance of two tokens (channels,).
inline float squared_distance(const float* a, const float* b, int64_t channels) {
  constexpr int64_t kSums = 16;
  double sum[kSums] = {};
  int64_t c = 0;
  for (; c + kSums <= channels; c += kSums)
    for (int64_t l = 0; l < kSums; ++l) {
      const double d = static_cast<double>(a[c + l]) - static_cast<double>(b[c + l]);
      sum[l] += d * d;
    }
  for (; c < channels; ++c) {
    const double d = static_cast<double>(a[c]) - static_cast<double>(b[c]);
    sum[c % kSums] += d * d;
  }
  for (int64_t half = kSums / 2; half > 0; half /= 2)
    for (int64_t l = 0; l < half; ++l) sum[l] += sum[l + half];
  return static_cast<float>(sum[0]);
}

// Squared distances of kRows tokens, the first at `a` in its panel, to the kPanel tokens of panel `b`.
inline void distance_tile(const float* a, const float* norm_a, const float* b, const float* norm_b, int64_t channels,
                          float rounding_limit, float (&tile)[kRows][kPanel]) {
  Vec sum[kRows][kVectors] = {};
  for (int64_t c = 0; c < channels; ++c, a += kPanel, b += kPanel) {
    Vec columns[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) columns[v] = load(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec row = broadcast(a[r]);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) sum[r][v] += row * columns[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      const Vec d = (norm_a[r] + load(norm_b + v * kLanes)) - 2.0f * sum[r][v];
      store(&tile[r][v * kLanes], d < rounding_limit ? Vec{} : d);  // NaN stays NaN, which no comparison finds nearer
    }
}

// The k nearest tokens of each token, ascending by (distance, index). Tokens must be offered in ascending order.
struct Neighbours {
  int64_t k = 0;
  Buffer<float> distances, worsts;
  Buffer<int32_t> indices;
  float* distance = nullptr;  // (tokens, k)
  int32_t* index = nullptr;   // (tokens, k), -1 where there is none
  float* worst = nullptr;     // (padded tokens,), each list accepts smaller distances

  // Empty lists, which accept distances below `bounds` (tokens,).
  void reset(int64_t tokens, int64_t num_neighbours, const float* bounds) {
    k = num_neighbours;
    distance = distances.get(tokens * k);
    index = indices.get(tokens * k);
    worst = worsts.get(padded(tokens));
    std::fill_n(distance, tokens * k, kInfinity);
    std::fill_n(index, tokens * k, -1);
    std::copy_n(bounds, tokens, worst);
    std::fill(worst + tokens, worst + padded(tokens), -kInfinity);  // padding accepts nothing
  }

  void offer(int64_t token, float d, int64_t other) {
    if (!(d < worst[token])) return;
    float* const ds = distance + token * k;
    int32_t* const is = index + token * k;
    int64_t place = k - 1;
    for (; place > 0 && d < ds[place - 1]; --place) {
      ds[place] = ds[place - 1];
      is[place] = is[place - 1];
    }
    ds[place] = d;
    is[place] = static_cast<int32_t>(other);
    worst[token] = std::min(worst[token], ds[k - 1]);
  }

  // Replace the distances in one token's list by `exact_distance(other)`, and sort the list again.
  template <class Distance>
  void rescore(int64_t token, const Distance& exact_distance) {
    float* const ds = distance + token * k;
    int32_t* const is = index + token * k;
    for (int64_t q = 0; q < k && is[q] >= 0; ++q) {
      const int32_t other = is[q];
      const float d = exact_distance(other);
      int64_t place = q;
      for (; place > 0 && (d < ds[place - 1] || (d == ds[place - 1] && other < is[place - 1])); --place) {
        ds[place] = ds[place - 1];
        is[place] = is[place - 1];
      }
      ds[place] = d;
      is[place] = other;
    }
  }

  // Insert the nearer tokens of `others`' list of one token, in which indices may have any order.
  void merge(int64_t token, const Neighbours& others) {
    for (int64_t q = 0; q < k; ++q) {
      const float d = others.distance[token * k + q];
      const int32_t other = others.index[token * k + q];
      if (other < 0) return;
      float* const ds = distance + token * k;
      int32_t* const is = index + token * k;
      auto before = [&](int64_t place) { return d < ds[place] || (d == ds[place] && other < is[place]); };
      if (!before(k - 1)) return;
      int64_t place = k - 1;
      for (; place > 0 && before(place - 1); --place) {
        ds[place] = ds[place - 1];
        is[place] = is[place - 1];
      }
      ds[place] = d;
      is[place] = other;
    }
  }
};

// A bound above the k smallest distances of each token of panel `p`, k <= kPanel: from its own and the two next panels.
// Neighbouring tokens are mostly neighbouring pixels, which look alike, so few of the other tokens are nearer.
void bound_distances(const Panels& x, int64_t p, int64_t k, float* bounds) {
  alignas(64) float tile[kRows][kPanel];
  Vec smallest[kPanel][kVectors];  // the first k are used, in ascending order
  for (int64_t q = 0; q < k; ++q)
    for (int v = 0; v < kVectors; ++v) smallest[q][v] = broadcast(kInfinity);
  for (int64_t other = std::max<int64_t>(0, p - 1); other < std::min(p + 2, x.count()); ++other)
    for (int64_t start = 0; start < kPanel; start += kRows) {
      const int64_t first = other * kPanel + start;
      distance_tile(x.panel(other) + start, x.norm + first, x.panel(p), x.norm + p * kPanel, x.channels,
                    x.rounding_limit, tile);
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) {
          Vec d = load(&tile[r][v * kLanes]);
          for (int64_t q = 0; q < k; ++q) {
            const Vec before = smallest[q][v];
            smallest[q][v] = d < before ? d : before;
            d = d < before ? before : d;
          }
        }
    }
  for (int64_t l = 0; l < kPanel && p * kPanel + l < x.tokens; ++l)
    bounds[p * kPanel + l] = std::nextafter(smallest[k - 1][l / kLanes][l % kLanes], kInfinity);
}

// Offer the distances within panel `p`.
void compare_within(const Panels& x, int64_t p, Neighbours& lists) {
  float tile[kRows][kPanel];
  for (int64_t start = 0; start < kPanel; start += kRows) {
    const int64_t first = p * kPanel + start;
    distance_tile(x.panel(p) + start, x.norm + first, x.panel(p), x.norm + p * kPanel, x.channels, x.rounding_limit,
                  tile);
    for (int64_t r = 0; r < kRows && first + r < x.tokens; ++r) {
      const int64_t i = first + r;
      lists.offer(i, tile[r][start + r] == tile[r][start + r] ? 0.0f : tile[r][start + r], i);
      for (int64_t l = start + r + 1; l < kPanel && p * kPanel + l < x.tokens; ++l) {
        lists.offer(i, tile[r][l], p * kPanel + l);
        lists.offer(p * kPanel + l, tile[r][l], i);
      }
    }
  }
}

// Offer the distances between the tokens of panel `p` and those of the later panel `other`.
void compare_between(const Panels& x, int64_t p, int64_t other, Neighbours& lists) {
  alignas(64) float tile[kRows][kPanel];
  const int64_t column = other * kPanel;
  for (int64_t start = 0; start < kPanel; start += kRows) {
    const int64_t first = p * kPanel + start;
    distance_tile(x.panel(p) + start, x.norm + first, x.panel(other), x.norm + column, x.channels, x.rounding_limit,
                  tile);
    for (int64_t r = 0; r < kRows; ++r) {
      const Vec own = broadcast(lists.worst[first + r]);
      for (int v = 0; v < kVectors; ++v) {
        const float* const d = &tile[r][v * kLanes];
        const int64_t there = column + v * kLanes;
        for (uint32_t near = less(load(d), own); near; near &= near - 1) {
          const int l = __builtin_ctz(near);
          lists.offer(first + r, d[l], there + l);
        }
        for (uint32_t near = less(load(d), load(lists.worst + there)); near; near &= near - 1) {
          const int l = __builtin_ctz(near);
          lists.offer(there + l, d[l], first + r);
        }
      }
    }
  }
}

// Compare every `workers`-th panel, from panel `worker` on, with itself and all later ones.
void compare_panels(const Panels& x, int64_t worker, int64_t workers, Neighbours& lists) {
  const int64_t panels = x.count(), step = x.cached();
  for (int64_t begin = 0; begin < panels; begin += step) {
    const int64_t end = std::min(panels, begin + step);
    // Every token is offered all lower indices, then itself, then all higher ones, in ascending order.
    for (int64_t p = worker; p < end; p += workers) {
      if (p >= begin) compare_within(x, p, lists);
      for (int64_t other = std::max(begin, p + 1); other < end; ++other) compare_between(x, p, other, lists);
    }
  }
}

// The nearest column of each query.
struct Nearest {
  Buffer<float> distances;
  Buffer<int32_t> columns;
  float* distance = nullptr;  // (padded queries, kPanel): the minimum over every kPanel-th column
  int32_t* panel = nullptr;   // (padded queries, kPanel): the panel of that column

  void reset(int64_t queries) {
    distance = distances.get(padded(queries) * kPanel);
    panel = columns.get(padded(queries) * kPanel);
    std::fill_n(distance, padded(queries) * kPanel, kInfinity);
    std::fill_n(panel, padded(queries) * kPanel, 0);
  }

  void offer(int64_t query, const float* tile, int32_t p, int64_t columns_here) {
    float* const d = distance + query * kPanel;
    int32_t* const from = panel + query * kPanel;
    if (columns_here >= kPanel) {
      for (int64_t l = 0; l < kPanel; ++l) {
        const bool nearer = tile[l] < d[l];
        d[l] = nearer ? tile[l] : d[l];
        from[l] = nearer ? p : from[l];
      }
    } else {
      for (int64_t l = 0; l < columns_here; ++l)
        if (tile[l] < d[l]) {
          d[l] = tile[l];
          from[l] = p;
        }
    }
  }

  // The smallest `exact_distance(column)` and its column, the first of several; infinity and column 0 if there is none.
  // Candidates are the columns whose stored distance is at most `rounding` above the smallest one.
  template <class Distance>
  std::pair<float, int64_t> best(int64_t query, float rounding, const Distance& exact_distance) const {
    const float* const stored = distance + query * kPanel;
    const float limit = *std::min_element(stored, stored + kPanel) + rounding;
    std::pair<float, int64_t> least{kInfinity, 0};
    for (int64_t l = 0; l < kPanel; ++l) {
      if (!(stored[l] <= limit) || stored[l] == kInfinity) continue;
      const int64_t column = panel[query * kPanel + l] * kPanel + l;
      const float d = exact_distance(column);
      if (d < least.first || (d == least.first && column < least.second)) least = {d, column};
    }
    return least;
  }
};

// Find the nearest column before its limit for each query. Limits ascend.
void search(const Panels& queries, const Panels& columns, const int32_t* limit, int64_t workers, Nearest& nearest) {
  nearest.reset(queries.tokens);
  const int64_t groups = ceil_div(queries.tokens, kRows), step = columns.cached();
  const int64_t tasks = std::max<int64_t>(1, std::min(4 * workers, groups / 4));  // each takes neighbouring groups
  run_tasks(tasks, workers, [&](int64_t task) {
    float tile[kRows][kPanel];
    for (int64_t begin = 0; begin < columns.count(); begin += step)
      for (int64_t group = groups * task / tasks; group < groups * (task + 1) / tasks; ++group) {
        const int64_t first = group * kRows, last = std::min(first + kRows, queries.tokens) - 1;
        const float* const a = queries.panel(first / kPanel) + first % kPanel;
        const int64_t end = std::min(begin + step, ceil_div(limit[last], kPanel));
        for (int64_t p = begin; p < end; ++p) {
          distance_tile(a, queries.norm + first, columns.panel(p), columns.norm + p * kPanel, columns.channels,
                        columns.rounding_limit, tile);
          for (int64_t q = first; q <= last; ++q)
            nearest.offer(q, tile[q - first], static_cast<int32_t>(p), limit[q] - p * kPanel);
        }
      }
  });
}

// Clusters one image after another, on up to `workers` threads.
class Clustering {
 public:
  Clustering(int64_t tokens, int64_t channels, int64_t clusters, int64_t k, int64_t workers)
      : tokens_(tokens), channels_(channels), clusters_(clusters), k_(k), workers_(workers), lists_(workers) {}

  // x (tokens, channels), mask (tokens,) or null -> centres (clusters,), assign (tokens,)
  void run(const float* x, const bool* mask, int64_t* centres, int64_t* assign) {
    // Masked tokens are left out, so the clusters of the others are bit for bit those of the image without them.
    real_.clear();
    for (int64_t i = 0; i < tokens_; ++i)
      if (!mask || mask[i]) real_.push_back(static_cast<int32_t>(i));
    if (mask) std::fill_n(assign, tokens_, 0);
    if (n() <= clusters_) return every_token_a_cluster(centres, assign);
    x_ = x;
    // Moving all tokens does not change their distances, which are more exact near the origin. One token is subtracted
    // rather than the mean, so that small integers stay integers and equal distances stay equal.
    origin_ = x + real_[0] * channels_;
    rounding_limit_ = 0;
    fill(all_, n(), [&](int64_t i) { return i; });
    for (int64_t i = 0; i < n(); ++i) rounding_limit_ = std::max(rounding_limit_, kRoundingLimit * all_.norm[i]);
    all_.rounding_limit = rounding_limit_;
    list_neighbours();
    rank_by_density();
    find_deltas();
    choose_centres();
    assign_tokens(centres, assign);
  }

 private:
  int64_t n() const { return static_cast<int64_t>(real_.size()); }

  void every_token_a_cluster(int64_t* centres, int64_t* assign) {
    // There are at most as many real tokens as clusters; the first masked tokens are the other centres.
    std::vector<bool> is_centre(tokens_, false);
    for (int32_t i : real_) is_centre[i] = true;
    int64_t missing = clusters_ - n();
    for (int64_t i = 0; i < tokens_ && missing > 0; ++i)
      if (!is_centre[i]) is_centre[i] = true, --missing;
    std::vector<int64_t> cluster(tokens_);
    for (int64_t i = 0, m = 0; i < tokens_; ++i)
      if (is_centre[i]) centres[cluster[i] = m++] = i;
    for (int32_t i : real_) assign[i] = cluster[i];
  }

  // Fill panels with `count` tokens; `token(i)` is the index of the i-th one among the real tokens.
  template <class Token>
  void fill(Panels& panels, int64_t count, const Token& token) {
    panels.resize(count, channels_);
    panels.rounding_limit = rounding_limit_;
    run_tasks(panels.count(), workers_, [&](int64_t p) {
      fill_panel(panels, p, x_, origin_, [&](int64_t i) { return real_[token(i)]; });
    });
  }

  // Squared distance of two of the real tokens.
  float distance(int64_t i, int64_t j) const {
    const float d = squared_distance(x_ + real_[i] * channels_, x_ + real_[j] * channels_, channels_);
    return d < rounding_limit_ ? 0.0f : d;
  }

  void list_neighbours() {
    const int64_t k = std::min(k_ + kSpare, n());
    bounds_.assign(n(), kInfinity);
    if (k <= kPanel)
      run_tasks(all_.count(), workers_, [&](int64_t p) { bound_distances(all_, p, k, bounds_.data()); });
    run_tasks(workers_, workers_, [&](int64_t worker) {
      lists_[worker].reset(n(), k, bounds_.data());
      compare_panels(all_, worker, workers_, lists_[worker]);
    });
    for (int64_t worker = 1; worker < workers_; ++worker)
      for (int64_t i = 0; i < n(); ++i) lists_[0].merge(i, lists_[worker]);
    constexpr int64_t kBlock = 64;
    run_tasks(ceil_div(n(), kBlock), workers_, [&](int64_t block) {
      for (int64_t i = block * kBlock; i < std::min((block + 1) * kBlock, n()); ++i)
        lists_[0].rescore(i, [&](int32_t j) { return distance(i, j); });
    });
  }

  void rank_by_density() {
    const Neighbours& lists = lists_[0];
    const int64_t k = std::min(k_, n());
    const float scale = static_cast<float>(k * channels_);
    sparsity_.resize(n());
    keys_.resize(n());
    for (int64_t i = 0; i < n(); ++i) {
      float sum = 0;
      for (int64_t q = 0; q < k; ++q) sum += lists.distance[i * lists.k + q];
      sparsity_[i] = sum / scale;  // density = exp(-sparsity)
      uint32_t bits;               // the bits of floats that are not negative have the order of the floats
      std::memcpy(&bits, &sparsity_[i], sizeof bits);
      keys_[i] = static_cast<uint64_t>(bits) << 32 | static_cast<uint64_t>(i);
    }
    std::sort(keys_.begin(), keys_.end());
    order_.resize(n());
    rank_.resize(n());
    for (int64_t r = 0; r < n(); ++r) {
      order_[r] = static_cast<int32_t>(keys_[r] & 0xffffffff);
      rank_[order_[r]] = static_cast<int32_t>(r);
    }
  }

  // Position in the lists of the first of the k nearest neighbours j of token i with `wanted(j)`; -1 if there is none.
  template <class Wanted>
  int64_t first_listed(int64_t i, const Wanted& wanted) const {
    const Neighbours& lists = lists_[0];
    const int64_t first = i * lists.k;
    for (int64_t q = first; q < first + std::min(k_, lists.k) && lists.index[q] >= 0; ++q)
      if (wanted(lists.index[q])) return q;
    return -1;
  }

  // Squared distance to the nearest denser token.
  void find_deltas() {
    delta_.assign(n(), kInfinity);
    unresolved_.clear();
    for (int32_t i : order_) {
      const int64_t q = first_listed(i, [&](int32_t j) { return rank_[j] < rank_[i]; });
      if (q >= 0) delta_[i] = lists_[0].distance[q];
      else if (rank_[i] > 0) unresolved_.push_back(i);
    }
    if (unresolved_.empty()) return;
    limit_.clear();
    for (int32_t i : unresolved_) limit_.push_back(rank_[i]);
    fill(queries_, static_cast<int64_t>(unresolved_.size()), [&](int64_t q) { return unresolved_[q]; });
    fill(columns_, limit_.back(), [&](int64_t r) { return order_[r]; });
    search(queries_, columns_, limit_.data(), workers_, nearest_);
    for (size_t q = 0; q < unresolved_.size(); ++q)
      delta_[unresolved_[q]] = nearest(q, [&](int64_t column) { return order_[column]; }).first;
  }

  // Choose the tokens with the highest delta * density; they are stored in ascending order.
  void choose_centres() {
    scores_.resize(n());
    for (int64_t i = 0; i < n(); ++i) {
      // log(sqrt(delta) * density) has the same order as the product and does not underflow.
      double score = std::log(static_cast<double>(delta_[i])) / 2 - static_cast<double>(sparsity_[i]);
      if (std::isnan(score)) score = -std::numeric_limits<double>::infinity();
      // The densest token has the highest score: its density and its delta, the largest distance, are both maximal.
      if (rank_[i] == 0) score = std::numeric_limits<double>::infinity();
      scores_[i] = {-score, static_cast<int32_t>(i)};
    }
    std::nth_element(scores_.begin(), scores_.begin() + (clusters_ - 1), scores_.end());
    cluster_.assign(n(), -1);
    for (int64_t m = 0; m < clusters_; ++m) cluster_[scores_[m].second] = 0;
    chosen_.clear();
    for (int64_t i = 0; i < n(); ++i)
      if (cluster_[i] == 0) {
        cluster_[i] = static_cast<int32_t>(chosen_.size());
        chosen_.push_back(static_cast<int32_t>(i));
      }
  }

  void assign_tokens(int64_t* centres, int64_t* assign) {
    for (int64_t m = 0; m < clusters_; ++m) centres[m] = real_[chosen_[m]];
    unresolved_.clear();
    for (int64_t i = 0; i < n(); ++i) {
      int64_t& own = assign[real_[i]];
      if ((own = cluster_[i]) >= 0) continue;
      const int64_t q = first_listed(i, [&](int32_t j) { return cluster_[j] >= 0; });
      if (q >= 0) own = cluster_[lists_[0].index[q]];
      else unresolved_.push_back(static_cast<int32_t>(i));
    }
    if (unresolved_.empty()) return;
    limit_.assign(unresolved_.size(), static_cast<int32_t>(clusters_));
    fill(queries_, static_cast<int64_t>(unresolved_.size()), [&](int64_t q) { return unresolved_[q]; });
    fill(columns_, clusters_, [&](int64_t m) { return chosen_[m]; });
    search(queries_, columns_, limit_.data(), workers_, nearest_);
    for (size_t q = 0; q < unresolved_.size(); ++q)
      assign[real_[unresolved_[q]]] = nearest(q, [&](int64_t column) { return chosen_[column]; }).second;
  }

  // Distance and column of the nearest token that the last search found for unresolved token q.
  template <class Token>
  std::pair<float, int64_t> nearest(size_t q, const Token& token) const {
    return nearest_.best(static_cast<int64_t>(q), rounding_limit_,
                         [&](int64_t column) { return distance(unresolved_[q], token(column)); });
  }

  const int64_t tokens_, channels_, clusters_, k_, workers_;
  const float* x_ = nullptr;
  const float* origin_ = nullptr;
  float rounding_limit_ = 0;
  Panels all_, queries_, columns_;
  std::vector<Neighbours> lists_;  // one per worker; merged into the first one
  Nearest nearest_;
  std::vector<int32_t> real_;  // tokens that are not masked; all indices below count only these
  std::vector<uint64_t> keys_;
  std::vector<float> bounds_, sparsity_, delta_;
  std::vector<int32_t> order_, rank_, unresolved_, limit_, cluster_, chosen_;
  std::vector<std::pair<double, int32_t>> scores_;
};

}  // namespace
}  // namespace tcformer

// x (batch, tokens, channels), mask (batch, tokens) or null -> centres (batch, clusters), assign (batch, tokens)
TCFORMER_EXPORT int tcformer_dpc_knn(const float* x, const bool* mask, int64_t batch, int64_t tokens, int64_t channels,
                                int64_t clusters, int64_t k, int64_t* centres, int64_t* assign) {
  using namespace tcformer;
  return guarded([&] {
    auto run = [&](Clustering& clustering, int64_t b) {
      clustering.run(x + b * tokens * channels, mask ? mask + b * tokens : nullptr, centres + b * clusters,
                     assign + b * tokens);
    };
    // As many images as threads at a time, each on its own thread; the remaining images one by one, on all threads.
    const int64_t threads = num_threads(), alone = batch - batch % threads;
    std::atomic<int64_t> next{0};
    if (alone > 0)
      run_workers(threads, [&] {
        Clustering clustering(tokens, channels, clusters, k, 1);
        for (int64_t b; (b = next.fetch_add(1)) < alone;) run(clustering, b);
      });
    if (alone == batch) return;
    Clustering clustering(tokens, channels, clusters, k, threads);
    for (int64_t b = alone; b < batch; ++b) run(clustering, b);
  });
}
