// What one collection of the fast path's counts costs, reads alone: by a call for each flow, by one
// batch, and from a mapping of the map, which is what the edge does. Medians of 101 collections.
//
//     cc -O2 -o counts bench/xdp/counts.c && sudo ./counts FLOWS CPUS
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define COUNT_BYTES 64
#define ROUNDS 101

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static int order(const void *one, const void *other)
{
	double apart = *(const double *)one - *(const double *)other;

	return apart < 0 ? -1 : apart > 0;
}

int main(int words, char **word)
{
	if (words != 3)
		return fprintf(stderr, "counts FLOWS CPUS\n"), 2;
	unsigned flows = atoi(word[1]), cpus = atoi(word[2]);
	size_t bytes = (size_t)flows * cpus * COUNT_BYTES;
	union bpf_attr per_cpu = { .map_type = BPF_MAP_TYPE_PERCPU_ARRAY, .key_size = 4,
				   .value_size = COUNT_BYTES, .max_entries = flows };
	union bpf_attr mapped = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4,
				  .value_size = COUNT_BYTES, .max_entries = flows * cpus,
				  .map_flags = BPF_F_MMAPABLE };
	int one = bpf(BPF_MAP_CREATE, &per_cpu), other = bpf(BPF_MAP_CREATE, &mapped);
	volatile unsigned long *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
	char *values = malloc((size_t)flows * sysconf(_SC_NPROCESSORS_CONF) * COUNT_BYTES);
	unsigned *keys = malloc(flows * sizeof(*keys)), next;
	double took[3][ROUNDS];
	unsigned long sum = 0;

	if (one < 0 || memory == MAP_FAILED)
		return perror("maps"), 1;
	for (int round = 0; round < ROUNDS; round++) {
		double began = now();

		for (unsigned flow = 0; flow < flows; flow++) {
			union bpf_attr attr = { .map_fd = one, .key = (long)&flow, .value = (long)values };

			if (bpf(BPF_MAP_LOOKUP_ELEM, &attr))
				return perror("lookup"), 1;
		}
		took[0][round] = now() - began;
		began = now();
		union bpf_attr attr = { .batch = { .map_fd = one, .out_batch = (long)&next, .keys = (long)keys,
						   .values = (long)values, .count = flows } };

		if (bpf(BPF_MAP_LOOKUP_BATCH, &attr) || attr.batch.count != flows)
			return perror("batch"), 1;
		took[1][round] = now() - began;
		began = now();
		for (size_t at = 0; at < bytes / sizeof(*memory); at++)
			sum += memory[at];
		took[2][round] = now() - began;
	}
	for (int way = 0; way < 3; way++)
		qsort(took[way], ROUNDS, sizeof(double), order);
	printf("%u flows, %u CPUs: a call each %.0f us, one batch %.0f us, mapping %.0f us%s\n", flows, cpus,
	       took[0][ROUNDS / 2], took[1][ROUNDS / 2], took[2][ROUNDS / 2], sum ? "?" : "");
	return 0;
}
