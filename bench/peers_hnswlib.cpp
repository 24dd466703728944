// SPDX-License-Identifier: Apache-2.0
//
// bench/peers_hnswlib.cpp - hnswlib, called from C++, for peers_graph.py
//
//     peers_hnswlib build METRIC base.fbin FOLDER             M = 16, efConstruction = 200, 2 threads
//     peers_hnswlib serve METRIC query.fbin truth.ibin FOLDER
//
// The same two commands as peers_engines.py has, without Python's part of a call. hnswlib is a header, which
// peers_graph.py takes from the package's source archive; nothing of it is in this repository. METRIC is l2 or ip.
#include <sys/resource.h>
#include <time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "hnswlib/hnswlib.h"

static const size_t k = 10, n_threads = 2, n_queries_most = 1000;

template <typename T> struct Matrix {
    uint32_t n = 0, d = 0;
    std::vector<T> values;
    explicit Matrix(const std::string &path)
    {
        std::ifstream file(path, std::ios::binary);
        file.read((char *)&n, 4);
        file.read((char *)&d, 4);
        values.resize((size_t)n * d);
        if (!file.read((char *)values.data(), (std::streamsize)(values.size() * sizeof(T)))) {
            std::cerr << "cannot read " << path << "\n";
            exit(1);
        }
    }
    const T *row(size_t i) const { return values.data() + i * d; }
};

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static std::unique_ptr<hnswlib::SpaceInterface<float>> space_of(const std::string &metric, size_t d)
{
    if (metric == "l2")
        return std::make_unique<hnswlib::L2Space>(d);
    return std::make_unique<hnswlib::InnerProductSpace>(d);
}

static int build(const std::string &metric, const std::string &base_path, const std::string &folder)
{
    Matrix<float> base(base_path);
    auto space = space_of(metric, base.d);
    double wall = seconds(CLOCK_MONOTONIC), own = seconds(CLOCK_PROCESS_CPUTIME_ID);
    hnswlib::HierarchicalNSW<float> index(space.get(), base.n, 16, 200);
    index.addPoint(base.row(0), 0);
    std::atomic<size_t> next{1};
    std::vector<std::thread> threads;
    for (size_t t = 0; t < n_threads; t++)
        threads.emplace_back([&] {
            for (size_t i; (i = next++) < base.n;)
                index.addPoint(base.row(i), i);
        });
    for (auto &thread : threads)
        thread.join();
    wall = seconds(CLOCK_MONOTONIC) - wall;
    own = seconds(CLOCK_PROCESS_CPUTIME_ID) - own;
    index.saveIndex(folder + "/index");
    std::ifstream file(folder + "/index", std::ios::binary | std::ios::ate);
    printf("{\"build_seconds\": %.2f, \"build_cpu_seconds\": %.2f, \"build_threads\": %zu, \"bytes_per_vector\": %.1f}\n",
           wall, own, n_threads, (double)file.tellg() / base.n);
    return 0;
}

static int serve(const std::string &metric, const std::string &query_path, const std::string &truth_path,
                 const std::string &folder)
{
    Matrix<float> queries(query_path);
    Matrix<int32_t> truth(truth_path);
    auto space = space_of(metric, queries.d);
    hnswlib::HierarchicalNSW<float> index(space.get(), folder + "/index");
    size_t n = std::min<size_t>(queries.n, n_queries_most);
    printf("{\"settings\": [");
    const int efs[] = {10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 450, 640, 900};
    for (size_t i = 0; i < sizeof efs / sizeof *efs; i++)
        printf("%s{\"ef\": %d}", i ? ", " : "", efs[i]);
    printf("], \"n_queries\": %zu}\n", n);
    fflush(stdout);
    std::vector<std::priority_queue<std::pair<float, hnswlib::labeltype>>> answers(n);
    for (std::string line; std::getline(std::cin, line);) {
        size_t colon = line.find(':');
        index.setEf(colon == std::string::npos ? k : strtoul(line.c_str() + colon + 1, nullptr, 10));
        double wall = seconds(CLOCK_MONOTONIC), own = seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (size_t i = 0; i < n; i++)
            answers[i] = index.searchKnn(queries.row(i), k);
        own = seconds(CLOCK_PROCESS_CPUTIME_ID) - own;
        wall = seconds(CLOCK_MONOTONIC) - wall;
        size_t right = 0; // labels are unique in an answer: each is in the queue once
        for (size_t i = 0; i < n; i++)
            for (; !answers[i].empty(); answers[i].pop())
                for (size_t j = 0; j < k; j++)
                    right += answers[i].top().second == (size_t)truth.row(i)[j];
        printf("{\"recall\": %.6f, \"wall_us\": %.3f, \"cpu_us\": %.3f, \"call_us\": 0}\n", (double)right / (double)(n * k),
               wall / (double)n * 1e6, own / (double)n * 1e6);
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    std::string what = argc > 1 ? argv[1] : "";
    if (what == "build" && argc == 5)
        return build(argv[2], argv[3], argv[4]);
    if (what == "serve" && argc == 6)
        return serve(argv[2], argv[3], argv[4], argv[5]);
    std::cerr << "peers_hnswlib build METRIC base.fbin FOLDER | serve METRIC query.fbin truth.ibin FOLDER\n";
    return 2;
}
