// The fast path: forwards RTP of streams that the engine has decided, before the kernel's UDP path.
//
// It may only narrow what the sockets would do. Whatever is not exactly a packet of a known stream
// goes on to the kernel untouched (XDP_PASS), and there the engine decides: other sources, other
// SSRCs, RTCP, STUN, DTLS, fragments, IP options, extension headers, odd lengths, bad checksums.
//
// The structures are those of src/xdp/layout.rs; a change of any of them is a new LAYOUT there,
// because maps outlive the process that made them. Octets of the network stay in network order.
// For little-endian machines. Built by bpf/build, compiled object checked in.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define RTP_HEADER_BYTES 12
// MEDIA_DATAGRAM_MAX_BYTES of src/driver.rs: the sockets refuse more, so nothing longer passes here.
#define PAYLOAD_MAX_BYTES 1920
// Receive queues of one shard in `sockets`.
#define QUEUES_MAX 64
// RFC 3550 A.1.
#define DROPOUT_MAX 3000
#define MISORDER_MAX 100

struct vlan_header {
	__be16 tag;
	__be16 protocol;
};

// A media port. IPv4 addresses stand in the first word.
struct port_key {
	__be32 address[4];
	__be16 port;
	__u16 version; // 4 or 6
};

enum kind { NONE, FORWARD, DELIVER };

enum flag {
	// The interface hands over packets of this machine whose UDP checksum is still to be filled in
	// (veth): that is done here, since nobody after us will.
	FILL_CHECKSUM = 1,
	// As before, but the packet keeps its mark and somebody after us does it (generic mode): the
	// field must hold the sum of the new pseudo header.
	KEEP_PARTIAL = 2,
	// A veth whose other end has no XDP program of its own queues what XDP_TX sends and tells nobody;
	// what is redirected to it arrives.
	ALWAYS_REDIRECT = 4,
};

struct rule {
	__be32 source[4]; // who may send
	__be32 out_source[4];
	__be32 out_target[4];
	__be32 ssrc;
	__u32 out_interface; // 0: next hop not known
	__u32 ticks; // of the RTP clock per nanosecond, 32 fractional bits
	__u32 sum_in; // of the 16-bit words of both addresses of the packet that arrives
	__u32 sum_out; // and of the one that leaves
	__be16 source_port;
	__be16 out_source_port;
	__be16 out_target_port;
	__be16 vlan; // expected VLAN id, 0: untagged
	__be16 out_vlan;
	__u16 delta; // what the UDP checksum's sum changes by
	__u16 out_mtu; // longest IP packet that may leave
	__u16 socket; // first place of the shard in `sockets`
	__u8 mac[ETH_ALEN]; // of the interface that the packet arrives at
	__u8 out_target_mac[ETH_ALEN];
	__u8 out_source_mac[ETH_ALEN];
	__u8 kind;
	__u8 flags;
	__u8 tos;
	__u8 ttl;
	__u8 user_types[2]; // payload types that user space takes; 0xff: none
	__u8 unused[4];
} __attribute__((aligned(8)));

struct flow {
	// Held by user space while it writes and here while we copy: a packet never sees half of an old
	// rule and half of a new one.
	struct bpf_spin_lock lock;
	__u32 generation; // of this Set
	struct rule rule;
};

// What one CPU saw of a flow. Only that CPU writes it; it starts anew when it sees a new generation,
// so user space never has to write here.
struct count {
	__u64 packets; // forwarded
	__u64 bytes; // of RTP
	__u64 last; // CLOCK_MONOTONIC, nanoseconds
	__u64 lost; // before the last leap of the sequence numbers
	__u64 seen; // packets since the last leap, also those left to user space
	__u32 generation;
	__s32 first; // lowest extended sequence number since the last leap
	__s32 highest;
	__u32 leap; // sequence number that would confirm a leap; above 0xffff: none
	__u32 transit; // of the last packet, RTP clock units
	__u32 jitter; // 16 times, as in RFC 3550 A.8
};

_Static_assert(sizeof(struct rule) == 112 && sizeof(struct flow) == 120, "see layout.rs");
_Static_assert(sizeof(struct count) == 64, "see layout.rs");

// What became of packets to media ports that were not forwarded; those are in `counts`.
enum verdict {
	DELIVERED,
	PASS_FLOW, // port known, no flow now
	PASS_SOURCE, // address, port, interface or VLAN of the sender
	PASS_PACKET, // not RTP, or malformed, fragmented, too long
	PASS_SSRC,
	PASS_TYPE, // payload type for user space
	PASS_HOP, // next hop not known, or packet too long for it
	PASS_CHECKSUM,
	FAILED, // no room for a VLAN tag: dropped
	VERDICTS,
};

// The sizes are set by the loader.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct port_key);
	__type(value, __u32); // slot
	__uint(max_entries, 4096);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct flow);
	__uint(max_entries, 4096);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct count);
	__uint(max_entries, 4096);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, VERDICTS);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 64);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4096);
} sockets SEC(".maps");

static __always_inline int tell(__u32 verdict, int action)
{
	__u64 *count = bpf_map_lookup_elem(&verdicts, &verdict);

	if (count)
		*count += 1;
	return action;
}

static __always_inline int pass(__u32 verdict)
{
	return tell(verdict, XDP_PASS);
}

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

// Copies by words: what the compiler makes of memcpy between packed structures are single octets.
static __always_inline void copy_mac(void *to, const void *from)
{
	__u16 *out = to;
	const __u16 *in = from;

	out[0] = in[0];
	out[1] = in[1];
	out[2] = in[2];
}

static __always_inline void copy_address(void *to, const void *from)
{
	__u32 *out = to;
	const __u32 *in = from;

	out[0] = in[0];
	out[1] = in[1];
	out[2] = in[2];
	out[3] = in[3];
}

// Sum of the 16-bit words of an IPv4 header.
static __always_inline __u32 ip_sum(const struct iphdr *ip)
{
	const __u32 *words = (const __u32 *)ip;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < 5; i++)
		sum += words[i];
	return fold(sum);
}

// Keeps the compiler from moving bounds of a packet pointer to the pointer to the packet's end, on
// which verifiers allow no arithmetic.
#define FIXED(pointer) asm volatile("" : "+r"(pointer))

// Sum of `length` octets; a negative number if the packet ends before.
static __noinline __s64 sum_of(const void *at, __u32 length, const void *end)
{
	__u64 sum = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < (PAYLOAD_MAX_BYTES + 8) / 8; i++) {
		if (length < 8)
			break;
		FIXED(at);
		if (at + 8 > end)
			return -1;
		__u64 word = *(const __u64 *)at;
		sum += (word & 0xffffffff) + (word >> 32);
		at += 8;
		length -= 8;
	}
#pragma clang loop unroll(disable)
	for (int i = 0; i < 3; i++) {
		if (length < 2)
			break;
		FIXED(at);
		if (at + 2 > end)
			return -1;
		sum += *(const __u16 *)at;
		at += 2;
		length -= 2;
	}
	if (length == 1) {
		FIXED(at);
		if (at + 1 > end)
			return -1;
		sum += *(const __u8 *)at;
	}
	return fold(sum);
}

// Whether the lengths within an RTP packet agree with each other, as wire/src/rtp.rs asks.
static __noinline int is_sound(const __u8 *rtp, __u32 length, const void *end)
{
	__u32 at = RTP_HEADER_BYTES + (rtp[0] & 0x0f) * 4;

	if (at > length)
		return 0;
	if (rtp[0] & 0x10) {
		const __u8 *extension = rtp + at;

		if ((const void *)(extension + 4) > end)
			return 0;
		at += 4 + ((extension[2] << 8) | extension[3]) * 4;
		if (at > length)
			return 0;
	}
	if (rtp[0] & 0x20) {
		__u32 last = length - 1;

		if (last >= PAYLOAD_MAX_BYTES)
			return 0;
		const __u8 *padding = rtp + last;

		if ((const void *)(padding + 1) > end)
			return 0;
		if (*padding == 0 || *padding > length - at)
			return 0;
	}
	return 1;
}

// Follows the sequence numbers of a stream (RFC 3550 A.1). A leap forwards or far back counts only
// when the next number follows it; what was lost before stays lost.
static __always_inline void follow(struct count *count, __u16 sequence)
{
	__u16 ahead = sequence - (__u16)count->highest;

	if (ahead < DROPOUT_MAX) {
		count->highest += ahead;
	} else if (ahead <= 0x10000 - MISORDER_MAX) {
		if (sequence != count->leap) {
			// Alone it is nobody's: not expected, and not received.
			count->leap = (sequence + 1) & 0xffff;
			return;
		}
		__s64 lost = (__s64)count->highest - count->first + 1 - (__s64)count->seen;

		if (lost > 0)
			count->lost += lost;
		// The one before was the first of the new row.
		count->first = (__s32)sequence - 1;
		count->highest = sequence;
		count->seen = 1;
	} else {
		// Late, or twice.
		__s32 extended = count->highest - (__s32)(0x10000 - ahead);

		if (extended < count->first)
			count->first = extended;
	}
	count->leap = 0x10000;
	count->seen += 1;
}

// Counts a packet that is forwarded, and its jitter (RFC 3550 A.8).
static __always_inline void watch(struct count *count, const struct rule *rule, __u32 timestamp,
				  __u32 payload)
{
	__u64 now = bpf_ktime_get_ns();
	// The product may overflow: only its bits 32 to 63 are of interest.
	__u32 transit = (__u32)((now * rule->ticks) >> 32) - timestamp;
	__s32 distance = transit - count->transit;

	if (distance < 0)
		distance = -distance;
	if (count->packets != 0 && rule->ticks != 0)
		count->jitter += (__u32)distance - ((count->jitter + 8) >> 4);
	count->transit = transit;
	count->last = now;
	count->packets += 1;
	count->bytes += payload;
}

static __always_inline void start(struct count *count, __u32 generation, __u16 sequence)
{
	count->packets = 0;
	count->bytes = 0;
	count->last = 0;
	count->lost = 0;
	count->seen = 0;
	count->first = sequence;
	count->highest = sequence;
	count->leap = 0x10000;
	count->transit = 0;
	count->jitter = 0;
	count->generation = generation;
}

// The UDP checksum of the packet that leaves. Negative: the packet is not to be touched.
static __always_inline __s32 checksum(const struct rule *rule, const struct udphdr *udp,
				      __u32 length, __u32 version, const void *end)
{
	__u32 old = udp->check;
	// Words of the pseudo header that both sides share.
	__u32 common = bpf_htons(IPPROTO_UDP) + bpf_htons(length);
	__u32 partial = fold((__u64)rule->sum_in + common);
	__u32 sum;

	if (old != 0 && (!(rule->flags & (FILL_CHECKSUM | KEEP_PARTIAL)) || old != partial)) {
		// RFC 1624: all that changes is known before the packet comes.
		sum = fold((__u64)(~old & 0xffff) + rule->delta);
	} else {
		// IPv6 has no packet without a checksum (RFC 8200 8.1).
		if (old == 0 && version != 4)
			return -1;
		__s64 octets = sum_of(udp, length, end);

		if (octets < 0)
			return -1;
		if (old != 0 && fold((__u64)octets + partial) == 0xffff)
			// Complete after all: the sum of its pseudo header happens to be its checksum.
			sum = fold((__u64)(~old & 0xffff) + rule->delta);
		else if (old != 0 && (rule->flags & KEEP_PARTIAL))
			return fold((__u64)rule->sum_out + common);
		else
			// None yet (a sender over IPv4 may leave it out, a local one leaves it to the
			// hardware): from the words of the packet that leaves.
			sum = fold((__u64)octets + (~old & 0xffff) + rule->sum_in + common +
				   rule->delta);
	}
	sum = ~sum & 0xffff;
	// Zero would say that there is none (RFC 768).
	return sum ? sum : 0xffff;
}

// Everything from the IP header on. `l2` (octets before it), `vlan` and `version` are constants
// where this is called, so each of the four kinds of packet has its own straight code.
static __always_inline int forward(struct xdp_md *ctx, const __u32 l2, __be16 vlan,
				   const __u32 version)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	const __u32 l3 = version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	struct iphdr *ip4 = data + l2;
	struct ipv6hdr *ip6 = data + l2;
	struct udphdr *udp = data + l2 + l3;
	__u8 *rtp = data + l2 + l3 + sizeof(*udp);
	struct port_key key = {};
	__u32 total;

	// Nothing of ours is shorter.
	if ((void *)(rtp + RTP_HEADER_BYTES) > end)
		return XDP_PASS;
	if (version == 4) {
		// No options, no fragments, nothing reserved.
		if (*(__u8 *)ip4 != 0x45 || ip4->protocol != IPPROTO_UDP ||
		    (ip4->frag_off & bpf_htons(0xbfff)))
			return XDP_PASS;
		total = bpf_ntohs(ip4->tot_len);
		key.address[0] = ip4->daddr;
	} else {
		if (*(__u8 *)ip6 >> 4 != 6 || ip6->nexthdr != IPPROTO_UDP)
			return XDP_PASS;
		total = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
		copy_address(key.address, &ip6->daddr);
	}
	key.port = udp->dest;
	key.version = version;
	__u32 *found = bpf_map_lookup_elem(&ports, &key);

	if (!found)
		return XDP_PASS;
	__u32 slot = *found;
	struct flow *flow = bpf_map_lookup_elem(&flows, &slot);

	if (!flow)
		return XDP_PASS;
	if (flow->rule.kind == NONE)
		return pass(PASS_FLOW);
	struct rule rule;
	__u32 generation;

	bpf_spin_lock(&flow->lock);
	generation = flow->generation;
	rule = flow->rule;
	bpf_spin_unlock(&flow->lock);

	// Whose packet is it?
	if (rule.kind == NONE)
		return pass(PASS_FLOW);
	if (udp->source != rule.source_port || vlan != rule.vlan ||
	    *(__u32 *)data != *(__u32 *)rule.mac ||
	    *(__u16 *)(data + 4) != *(__u16 *)(rule.mac + 4))
		return pass(PASS_SOURCE);
	if (version == 4) {
		if (ip4->saddr != rule.source[0])
			return pass(PASS_SOURCE);
		if (ip_sum(ip4) != 0xffff)
			return pass(PASS_CHECKSUM);
	} else {
		__be32 *source = (__be32 *)&ip6->saddr;

		if (source[0] != rule.source[0] || source[1] != rule.source[1] ||
		    source[2] != rule.source[2] || source[3] != rule.source[3])
			return pass(PASS_SOURCE);
	}

	// Is it RTP, whole, and nothing else?
	__u32 length = bpf_ntohs(udp->len);

	if (length < sizeof(*udp) + RTP_HEADER_BYTES || length > sizeof(*udp) + PAYLOAD_MAX_BYTES ||
	    length != total - l3 || data + l2 + total > end)
		return pass(PASS_PACKET);
	__u32 payload = length - sizeof(*udp);
	__u8 type = rtp[1] & 0x7f;

	// 64 to 95 are the packet types of RTCP (RFC 5761).
	if (rtp[0] >> 6 != 2 || (type >= 64 && type <= 95))
		return pass(PASS_PACKET);
	if (*(__be32 *)(rtp + 8) != rule.ssrc)
		return pass(PASS_SSRC);
	if (rule.kind == DELIVER) {
		// Its contents, padding among them, are checked after decryption.
		__u32 queue = ctx->rx_queue_index;

		if (queue >= QUEUES_MAX)
			return pass(PASS_HOP);
		return tell(DELIVERED, bpf_redirect_map(&sockets, rule.socket + queue, XDP_PASS));
	}
	if ((rtp[0] & 0x3f) && !is_sound(rtp, payload, end))
		return pass(PASS_PACKET);
	int for_user = type == rule.user_types[0] || type == rule.user_types[1];
	int no_hop = rule.out_interface == 0 || total > rule.out_mtu;
	__u16 sequence = bpf_ntohs(*(__be16 *)(rtp + 2));
	__u32 timestamp = bpf_ntohl(*(__be32 *)(rtp + 4));
	__s32 sum = 0;

	if (!for_user && !no_hop) {
		sum = checksum(&rule, udp, length, version, end);
		if (sum < 0)
			return pass(PASS_CHECKSUM);
	}
	struct count *count = bpf_map_lookup_elem(&counts, &slot);

	if (!count)
		return XDP_PASS;
	if (count->generation != generation)
		start(count, generation, sequence);
	// What user space takes is not counted as forwarded here, but its number is no gap.
	follow(count, sequence);
	if (for_user)
		return pass(PASS_TYPE);
	if (no_hop)
		return pass(PASS_HOP);
	watch(count, &rule, timestamp, payload);

	// From here on the packet is ours.
	const __be16 protocol = version == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	const __u32 tagged = sizeof(struct ethhdr) + sizeof(struct vlan_header);
	__u32 l2_out = rule.out_vlan ? tagged : sizeof(struct ethhdr);

	if (l2_out != l2) {
		if (bpf_xdp_adjust_head(ctx, (int)l2 - (int)l2_out))
			return tell(FAILED, XDP_DROP);
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
	}
	struct ethhdr *eth = data;
	void *ip;

	if (rule.out_vlan) {
		struct vlan_header *header = (void *)(eth + 1);

		ip = header + 1;
		if (ip + l3 + sizeof(*udp) > end)
			return tell(FAILED, XDP_DROP);
		eth->h_proto = bpf_htons(ETH_P_8021Q);
		header->tag = rule.out_vlan;
		header->protocol = protocol;
	} else {
		ip = eth + 1;
		if (ip + l3 + sizeof(*udp) > end)
			return tell(FAILED, XDP_DROP);
		eth->h_proto = protocol;
	}
	copy_mac(eth->h_dest, rule.out_target_mac);
	copy_mac(eth->h_source, rule.out_source_mac);

	// The packet is one of ours: nothing of the sender's IP header goes on, as through a socket.
	if (version == 4) {
		ip4 = ip;
		ip4->tos = rule.tos;
		ip4->id = 0;
		ip4->frag_off = bpf_htons(0x4000);
		ip4->ttl = rule.ttl;
		ip4->saddr = rule.out_source[0];
		ip4->daddr = rule.out_target[0];
		// All ten words are known.
		ip4->check = ~fold((__u64)rule.sum_out + bpf_htons(0x4500 | rule.tos) +
				   ip4->tot_len + bpf_htons(0x4000) +
				   bpf_htons((rule.ttl << 8) | IPPROTO_UDP));
	} else {
		ip6 = ip;
		*(__be32 *)ip6 = bpf_htonl(0x60000000 | ((__u32)rule.tos << 20));
		ip6->hop_limit = rule.ttl;
		copy_address(&ip6->saddr, rule.out_source);
		copy_address(&ip6->daddr, rule.out_target);
	}
	udp = ip + l3;
	udp->source = rule.out_source_port;
	udp->dest = rule.out_target_port;
	udp->check = sum;

	// What an Ethernet card or a careless sender left behind the packet stays here.
	long surplus = (end - data) - (long)(l2_out + total);

	if (surplus > 0 && bpf_xdp_adjust_tail(ctx, -surplus))
		return tell(FAILED, XDP_DROP);
	if (rule.out_interface == ctx->ingress_ifindex && !(rule.flags & ALWAYS_REDIRECT))
		return XDP_TX;
	return bpf_redirect_map(&interfaces, rule.out_interface, XDP_DROP);
}

SEC("xdp")
int relay(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct vlan_header *header = (void *)(eth + 1);

	if ((void *)(header + 1) > end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return forward(ctx, sizeof(*eth), 0, 4);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return forward(ctx, sizeof(*eth), 0, 6);
	if (eth->h_proto != bpf_htons(ETH_P_8021Q))
		return XDP_PASS;
	__be16 vlan = header->tag & bpf_htons(0x0fff);

	// A priority tag names no VLAN.
	if (vlan == 0)
		return XDP_PASS;
	if (header->protocol == bpf_htons(ETH_P_IP))
		return forward(ctx, sizeof(*eth) + sizeof(*header), vlan, 4);
	if (header->protocol == bpf_htons(ETH_P_IPV6))
		return forward(ctx, sizeof(*eth) + sizeof(*header), vlan, 6);
	return XDP_PASS;
}

// Sends a test frame back out of the interface: the loader asks by it whether the driver, and what
// is behind it, can transmit.
SEC("xdp")
int probe(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_TX;
}

// Needs no GPL-only helper.
char _license[] SEC("license") = "Apache-2.0";
