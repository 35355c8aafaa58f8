// Programs around the one that is measured: a source of RTP, a sink that counts, and the least that
// any relay must do (rewrite and transmit), which is the measure for ours.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct settings {
	__u32 streams;
	__u32 fib; // bare: ask the kernel for the next hop of each packet
	__u8 headers[42]; // of a packet as it leaves the source
	__u8 unused[2];
	__u32 interface; // bare: where to, 0: back
	__u64 period; // pacer: nanoseconds from one packet to the next
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct settings);
	__uint(max_entries, 1);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 2);
} counters SEC(".maps");

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__u8 rtp[12];
} __attribute__((packed));

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4);
} interfaces SEC(".maps");

static __always_inline __u64 *counter(__u32 which)
{
	return bpf_map_lookup_elem(&counters, &which);
}

// Each frame is the next packet of the next stream: port 20000 + 2n, its own sequence number.
SEC("xdp")
int source(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct frame *frame = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	__u64 *count = counter(0);

	if ((void *)(frame + 1) > end || !set || !count || !set->streams)
		return XDP_DROP;
	__u32 number = *count;
	__u32 stream = number % set->streams;
	__u32 sequence = number / set->streams;

	*count += 1;
	// Frames are used again as they came back.
	__builtin_memcpy(frame, set->headers, sizeof(set->headers));
	frame->udp.dest = bpf_htons(20000 + 2 * stream);
	frame->udp.source = bpf_htons(4000);
	frame->rtp[2] = sequence >> 8;
	frame->rtp[3] = sequence;
	return XDP_TX;
}

// Packets of `pacer` by the time that they took, in bins of BIN_NS; the last has all that are longer.
#define BINS 16384
#define BIN_NS 16
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, BINS);
} latencies SEC(".maps");

struct stamped {
	struct frame frame;
	__u64 sent;
} __attribute__((packed));

// When the next packet is due.
static __u64 due;

static long wait(__u32 turn, void *unused)
{
	(void)turn;
	(void)unused;
	return bpf_ktime_get_ns() >= due;
}

// As `source`, one packet each period, with the time in it. Waits where it is, since it is to be
// measured what a packet meets, and not how a process wakes up.
SEC("xdp")
int pacer(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct stamped *packet = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	__u64 *count = counter(0);

	if ((void *)(packet + 1) > end || !set || !count || !set->streams)
		return XDP_DROP;
	__u32 number = *count;
	__u32 stream = number % set->streams;
	__u32 sequence = number / set->streams;

	*count += 1;
	__builtin_memcpy(&packet->frame, set->headers, sizeof(set->headers));
	packet->frame.udp.dest = bpf_htons(20000 + 2 * stream);
	packet->frame.udp.source = bpf_htons(4000);
	packet->frame.rtp[2] = sequence >> 8;
	packet->frame.rtp[3] = sequence;
	bpf_loop(1 << 20, wait, 0, 0);
	__u64 now = bpf_ktime_get_ns();

	// Who was held up does not catch up: that would be a burst.
	due = due + 2 * set->period < now ? now + set->period : due + set->period;
	packet->sent = now;
	return XDP_TX;
}

// As `sink`, for any port, and takes the time.
SEC("xdp")
int clock_sink(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct stamped *packet = (void *)(long)ctx->data;
	__u64 *count = counter(1);

	if ((void *)(packet + 1) > end || packet->frame.eth.h_proto != bpf_htons(ETH_P_IP) ||
	    packet->frame.ip.protocol != IPPROTO_UDP)
		return XDP_PASS;
	__u64 bin = (bpf_ktime_get_ns() - packet->sent) / BIN_NS;
	__u32 key = bin < BINS ? bin : BINS - 1;
	__u64 *packets = bpf_map_lookup_elem(&latencies, &key);

	if (packets)
		*packets += 1;
	if (count)
		*count += 1;
	return XDP_DROP;
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct frame *frame = (void *)(long)ctx->data;
	__u64 *count = counter(1);

	// Neighbour discovery and the like are nobody's packets.
	if ((void *)(frame + 1) > end || frame->eth.h_proto != bpf_htons(ETH_P_IP) ||
	    frame->ip.protocol != IPPROTO_UDP || frame->udp.dest != bpf_htons(5000))
		return XDP_PASS;
	if (count)
		*count += 1;
	return XDP_DROP;
}

SEC("xdp")
int drop(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_DROP;
}

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

// Swaps the ends of the packet, with its checksums kept right, and sends it back as the relay does
// on a veth.
SEC("xdp")
int bare(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct frame *frame = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);

	if ((void *)(frame + 1) > end || !set || frame->eth.h_proto != bpf_htons(ETH_P_IP) ||
	    frame->ip.protocol != IPPROTO_UDP)
		return XDP_PASS;
	if (set->fib) {
		struct bpf_fib_lookup lookup = {
			.family = 2,
			.l4_protocol = IPPROTO_UDP,
			.tot_len = bpf_ntohs(frame->ip.tot_len),
			.ipv4_src = frame->ip.daddr,
			.ipv4_dst = frame->ip.saddr,
			.ifindex = ctx->ingress_ifindex,
		};
		if (bpf_fib_lookup(ctx, &lookup, sizeof(lookup), 0) != BPF_FIB_LKUP_RET_SUCCESS)
			return XDP_PASS;
		__builtin_memcpy(frame->eth.h_dest, lookup.dmac, ETH_ALEN);
		__builtin_memcpy(frame->eth.h_source, lookup.smac, ETH_ALEN);
	} else {
		__u8 mac[ETH_ALEN];

		__builtin_memcpy(mac, frame->eth.h_dest, ETH_ALEN);
		__builtin_memcpy(frame->eth.h_dest, frame->eth.h_source, ETH_ALEN);
		__builtin_memcpy(frame->eth.h_source, mac, ETH_ALEN);
	}
	__be32 address = frame->ip.daddr;
	__be16 port = frame->udp.dest;

	frame->ip.daddr = frame->ip.saddr;
	frame->ip.saddr = address;
	frame->udp.dest = bpf_htons(5000);
	frame->udp.check = ~fold((__u32)(__u16)~frame->udp.check + (__u16)~frame->udp.source +
				 (__u16)~port + port + bpf_htons(5000));
	frame->udp.source = port;
	__u16 ttl = frame->ip.ttl;

	frame->ip.ttl = 64;
	frame->ip.check = ~fold((__u32)(__u16)~frame->ip.check + (__u16)~ttl + 64);
	return bpf_redirect_map(&interfaces, set->interface ? set->interface : ctx->ingress_ifindex,
				XDP_DROP);
}

char _license[] SEC("license") = "GPL";
