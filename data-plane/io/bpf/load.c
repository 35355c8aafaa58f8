// Both ends of `ravelin load --via xdp`: a source that writes RTP into live frames (BPF_PROG_RUN)
// when they are due, and a sink on the interfaces where streams come out, which checks every octet.
// What stands in a packet is told by tools/src/load/content.rs, whose tests compare the two; the
// structures are those of src/traffic.rs. IPv4 only. For little-endian machines. Built by bpf/build.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MARK 0x646c7672 // "rvld"
#define WORDS_MAX 172
#define BUCKETS 1024
// What a source that fell behind makes up for; beyond it the schedule is moved, and told.
#define CATCH_UP_NS 5000000

struct stamp {
	__be32 mark;
	__be32 stream;
	__be64 number;
	__be64 sent_ns;
} __attribute__((packed));

struct rtp {
	__u8 version;
	__u8 type;
	__be16 sequence;
	__be32 timestamp;
	__be32 ssrc;
} __attribute__((packed));

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct rtp rtp;
	struct stamp stamp;
} __attribute__((packed));

struct stream {
	__u8 head[42]; // Ethernet, IPv4, UDP
	__u16 sum; // over the pseudo header and the UDP header
	__be32 ssrc;
	__u32 side; // it leaves by
	// Where it must come out, and from where; 0: from anywhere.
	__u32 index; // of the interface
	__be32 to, from;
	__be16 to_port, from_port;
};

struct settings {
	__u64 total; // packets to be sent
	__u64 period_ns; // between two
	__u32 period_part; // 2^-32 ns of it
	__u32 streams;
	__u32 payload; // octets behind the RTP header
	__u32 type; // of payload
};

// Of the source, which runs on one core at a time.
struct progress {
	__u64 sent;
	__u64 number; // of the next packet in its stream
	__u64 due_ns; // of the next packet; 0: not begun
	__u64 begun_ns;
	__u64 ended_ns;
	__u64 late_ns_max;
	__u64 skipped_ns;
	__u64 polls; // times that it looked and nothing was due
	__u32 due_part;
	__u32 stream; // of the next packet
};

// Of one stream. It comes out at one interface, and one thread at a time takes what arrives there.
struct tally {
	__u64 next; // one more than the highest number
	__u64 window; // of the 64 numbers below it, which were seen
	__u64 unique;
	__u32 reordered;
	__u32 duplicates;
};

struct faults {
	__u64 corrupt;
	__u64 misdelivered;
	__u64 foreign;
};

#define ARRAY(name_, type_, count_) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__type(key, __u32); \
		__type(value, type_); \
		__uint(max_entries, count_); \
	} name_ SEC(".maps")

ARRAY(settings, struct settings, 1);
ARRAY(progress, struct progress, 1);
ARRAY(streams, struct stream, 1);
ARRAY(tallies, struct tally, 1);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct faults);
	__uint(max_entries, 1);
} faults SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, BUCKETS);
} latencies SEC(".maps");

// The interface of each side, which may be in any network namespace.
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 8);
} sides SEC(".maps");

// One word of a packet's pattern.
static __always_inline __u64 pattern(__u64 *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	__u64 mixed = (*state ^ *state >> 30) * 0xbf58476d1ce4e5b9ull;

	return mixed ^ mixed >> 27;
}

static __always_inline __u64 pattern_start(__u32 stream, __u64 number)
{
	return number ^ (__u64)stream << 40;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline void step(struct progress *at, const struct settings *set)
{
	__u64 part = (__u64)at->due_part + set->period_part;

	at->due_part = part;
	at->due_ns += set->period_ns + (part >> 32);
	at->sent += 1;
	if (++at->stream >= set->streams) {
		at->stream = 0;
		at->number += 1;
	}
}

// Writes the next packet if it is due, and sends it out of its side.
SEC("xdp")
int source(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct frame *frame = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct progress *at = bpf_map_lookup_elem(&progress, &zero);

	if (!set || !at || (void *)(frame + 1) > end || at->sent >= set->total)
		return XDP_DROP;
	__u64 now = bpf_ktime_get_ns();

	if (!at->due_ns)
		at->due_ns = at->begun_ns = now;
	if (now < at->due_ns) {
		at->polls += 1;
		return XDP_DROP;
	}
	__u64 late = now - at->due_ns;

	if (late > at->late_ns_max)
		at->late_ns_max = late;
	if (late > CATCH_UP_NS) {
		at->skipped_ns += late;
		at->due_ns = now;
	}
	__u32 number_of = at->stream;
	struct stream *stream = bpf_map_lookup_elem(&streams, &number_of);

	if (!stream)
		return XDP_DROP;
	__u64 number = at->number;

	__builtin_memcpy(frame, stream->head, sizeof(stream->head));
	frame->rtp.version = 0x80;
	frame->rtp.type = set->type;
	frame->rtp.sequence = bpf_htons(number);
	frame->rtp.timestamp = bpf_htonl((__u32)number * 160);
	frame->rtp.ssrc = stream->ssrc;
	frame->stamp.mark = MARK;
	frame->stamp.stream = bpf_htonl(number_of);
	frame->stamp.number = bpf_cpu_to_be64(number);
	frame->stamp.sent_ns = bpf_cpu_to_be64(now);

	__u64 sum = stream->sum;
	__u32 *written = (void *)&frame->rtp;

	for (int i = 0; i < 9; i++)
		sum += written[i];
	__u64 state = pattern_start(number_of, number);
	__u8 *into = (void *)(frame + 1);

	for (int i = 0; i < WORDS_MAX; i++) {
		__u64 word;

		if ((void *)(into + 8) > end)
			break;
		word = pattern(&state);
		*(__u64 *)into = word;
		sum += (__u32)word;
		sum += word >> 32;
		into += 8;
	}
	if ((void *)(into + 1) <= end) {
		__u64 word = pattern(&state);

		for (int i = 0; i < 7; i++) {
			if ((void *)(into + 1) > end)
				break;
			*into++ = word;
			sum += (word & 0xff) << (i & 1 ? 8 : 0);
			word >>= 8;
		}
	}
	__u16 check = ~fold(sum);

	frame->udp.check = check ? check : 0xffff;
	step(at, set);
	if (at->sent >= set->total)
		at->ended_ns = now;
	return bpf_redirect_map(&sides, stream->side, XDP_DROP);
}

static __always_inline void record(__u64 ns)
{
	__u32 shift = 0;

	// 64 buckets of one nanosecond, then 32 to each doubling.
	if (ns >> (6 + 16))
		shift += 16;
	if (ns >> (6 + 8 + shift))
		shift += 8;
	if (ns >> (6 + 4 + shift))
		shift += 4;
	if (ns >> (6 + 2 + shift))
		shift += 2;
	if (ns >> (6 + 1 + shift))
		shift += 1;
	if (ns >> (6 + shift))
		shift += 1;
	__u64 bucket = ((__u64)shift << 5) + (ns >> shift);
	__u32 key = bucket < BUCKETS ? bucket : BUCKETS - 1;
	__u64 *count = bpf_map_lookup_elem(&latencies, &key);

	if (count)
		*count += 1;
}

// Takes packets of the streams off the wire, checked; leaves everything else to the stack.
SEC("xdp")
int sink(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct frame *frame = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct faults *fault = bpf_map_lookup_elem(&faults, &zero);

	if (!set || !fault || (void *)(frame + 1) > end || frame->eth.h_proto != bpf_htons(ETH_P_IP) ||
	    frame->ip.version != 4 || frame->ip.ihl != 5 || frame->ip.protocol != IPPROTO_UDP)
		return XDP_PASS;
	if (frame->stamp.mark != MARK) {
		fault->foreign += 1;
		return XDP_PASS;
	}
	__u32 number_of = bpf_ntohl(frame->stamp.stream);
	struct stream *stream = bpf_map_lookup_elem(&streams, &number_of);
	struct tally *tally = bpf_map_lookup_elem(&tallies, &number_of);
	__u64 number = bpf_be64_to_cpu(frame->stamp.number);
	void *last = (void *)(frame + 1) + set->payload - sizeof(struct stamp);

	// A frame is at least 60 octets long and may be filled up to that: these are longer.
	if (!stream || !tally || set->payload < sizeof(struct stamp) || last != end ||
	    bpf_ntohs(frame->udp.len) != sizeof(struct udphdr) + sizeof(struct rtp) + set->payload ||
	    frame->rtp.version != 0x80 || frame->rtp.sequence != bpf_htons(number) ||
	    frame->rtp.timestamp != bpf_htonl((__u32)number * 160) || frame->rtp.ssrc != stream->ssrc)
		goto corrupt;
	__u64 state = pattern_start(number_of, number);
	__u8 *from = (void *)(frame + 1);

	for (int i = 0; i < WORDS_MAX; i++) {
		if ((void *)(from + 8) > end)
			break;
		if (*(__u64 *)from != pattern(&state))
			goto corrupt;
		from += 8;
	}
	if ((void *)(from + 1) <= end) {
		__u64 word = pattern(&state);

		for (int i = 0; i < 7; i++) {
			if ((void *)(from + 1) > end)
				break;
			if (*from++ != (__u8)word)
				goto corrupt;
			word >>= 8;
		}
	}
	if (ctx->ingress_ifindex != stream->index || frame->ip.daddr != stream->to ||
	    frame->udp.dest != stream->to_port ||
	    (stream->from && (frame->ip.saddr != stream->from || frame->udp.source != stream->from_port))) {
		fault->misdelivered += 1;
		return XDP_DROP;
	}
	__u64 now = bpf_ktime_get_ns(), sent = bpf_be64_to_cpu(frame->stamp.sent_ns);

	if (number >= tally->next) {
		__u64 ahead = number - tally->next + 1;

		tally->window = ahead < 64 ? tally->window << ahead | 1 : 1;
		tally->next = number + 1;
	} else {
		__u64 behind = tally->next - 1 - number;

		// Too old to tell: it arrived late, and may have come before.
		if (behind >= 64 || tally->window >> behind & 1) {
			tally->duplicates += 1;
			return XDP_DROP;
		}
		tally->window |= 1ull << behind;
		tally->reordered += 1;
	}
	tally->unique += 1;
	record(now > sent ? now - sent : 0);
	return XDP_DROP;

corrupt:
	fault->corrupt += 1;
	return XDP_DROP;
}

char _license[] SEC("license") = "GPL";
