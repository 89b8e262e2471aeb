// Tasks on PyTorch's own threads, and memory that a thread reuses from task to task.
#pragma once

#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>

// The functions that Python calls return 0, or 1 if memory ran out.
#define TCFORMER_EXPORT extern "C" __attribute__((visibility("default")))

namespace tcformer {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int64_t num_threads() {
  uint32_t threads = 1;
  torch_get_num_threads(&threads);
  return std::max<int64_t>(threads, 1);
}

// Run `worker()` on up to `workers` threads. Inside such a worker, and inside PyTorch's own parallel regions, it runs
// only on the calling thread.
template <class Worker>
void run_workers(int64_t workers, const Worker& worker) {
  if (workers <= 1) {
    worker();
    return;
  }
  auto call = [](int64_t begin, int64_t end, void* context) {
    for (int64_t i = begin; i < end; ++i) (*static_cast<const Worker*>(context))();
  };
  if (torch_parallel_for(0, workers, 1, call, const_cast<void*>(static_cast<const void*>(&worker))) != 0)
    throw std::runtime_error("a worker failed");
}

// Call `task(i)` once for each i in [0, count), on up to `workers` threads; a free thread takes the next task.
// The result of a task must not depend on the thread or on other tasks.
template <class Task>
void run_tasks(int64_t count, int64_t workers, const Task& task) {
  std::atomic<int64_t> next{0};
  run_workers(std::min(count, workers), [&] {
    for (int64_t i; (i = next.fetch_add(1)) < count;) task(i);
  });
}

// Uninitialised memory that grows and is reused, aligned for the widest vectors.
template <class T>
class Buffer {
 public:
  T* get(int64_t count) {
    if (count > capacity_) {
      data_.reset();
      data_.reset(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{64})));
      capacity_ = count;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t capacity_ = 0;
};

// Run `function` and return 0, or 1 if it throws: exceptions must not cross the C interface.
template <class Function>
int guarded(const Function& function) {
  try {
    function();
    return 0;
  } catch (...) {
    return 1;
  }
}

}  // namespace tcformer
