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
// Media ports by number, moved by their address.
#define PLACES 65536
#define CHAIN_MAX 16
// RFC 3550 A.1.
#define DROPOUT_MAX 3000
#define MISORDER_MAX 100
// What a CPU knows of a stream is too old to go on from: others may have had it meanwhile. Shorter
// than any stream needs for a cycle of its numbers.
#define ELSEWHERE_NS 1000000000ull

struct vlan_header {
	__be16 tag;
	__be16 protocol;
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

// A media port, who may send to it, and what happens then. User space writes it through a mapping,
// without a call: `sequence` is odd meanwhile and another one afterwards, so whoever reads the same
// even number before and after has read one whole rule. That holds where loads are done in their
// order, which is x86-64; the loader refuses other machines. A process that is killed while it
// writes leaves an odd number, and the port to the sockets.
//
// Port, address, version and `next` never change once `ports` leads here. IPv4 needs the first two
// cache lines. Slot 0 is no flow: it names the layout and the owner.
struct flow {
	__u32 sequence;
	__u32 next; // slot with the same place in `ports`; 0: none
	__be32 source4; // as in the header of IPv4; 0 for IPv6
	__be32 local4;
	__be16 source_port; // as in the header of UDP
	__be16 port;
	__be32 ssrc;
	__u8 mac[ETH_ALEN]; // of the interface that the packet arrives at
	__be16 vlan; // expected VLAN id, 0: untagged
	__u8 version; // 4, 6, or 0 in a slot that was never used
	__u8 kind;
	__u8 flags;
	__u8 unused;
	__u8 user_types[2]; // payload types that user space takes; 0xff: none
	__u16 socket; // first place of the shard in `sockets`
	__u32 generation; // of this Set
	__u32 ticks; // of the RTP clock per nanosecond, 32 fractional bits
	__u16 sum_in; // of the 16-bit words of both addresses of the packet that arrives
	__u16 sum_out; // and of the one that leaves
	__u16 delta; // what the UDP checksum's sum changes by
	__u16 out_mtu; // longest IP packet that may leave
	__u32 out_interface; // 0: next hop not known
	__be16 out_vlan;
	__u8 tos;
	__u8 ttl;

	__be32 out_source4;
	__be32 out_target4;
	__be16 out_source_port;
	__be16 out_target_port;
	__u16 out_ip_sum; // of all words of the IPv4 header that leaves, but its length
	__u16 unused_too;
	__u8 out_target_mac[ETH_ALEN];
	__u8 out_source_mac[ETH_ALEN];
	__u32 unused_here;
	__be32 source6[4];
	__be32 local6[4];

	__be32 out_source6[4];
	__be32 out_target6[4];
	__u8 unused_there[32];
} __attribute__((aligned(64)));

// What a packet needs of the rule after it was admitted: read before the packet is touched.
struct way {
	__u64 macs; // 8 of the 12 octets of an Ethernet header's addresses
	__u32 more_macs;
	__u32 ports;
	__u64 addresses[4]; // IPv4: the first
	__u32 interface;
	__u32 ticks;
	__u32 generation;
	__u16 ip_sum;
	__u16 sum_in;
	__u16 sum_out;
	__u16 delta;
	__u16 mtu;
	__be16 vlan;
	__u8 tos;
	__u8 ttl;
	__u8 flags;
	__u8 user_types[2];
};

// What one CPU saw of a flow. Only that CPU writes it; it starts anew when it sees a new generation,
// so user space never has to write here.
//
// All CPUs number the packets of a flow alike, from the first one on without a gap over wraps and
// leaps of the sequence numbers, so what each saw adds up: lost is what lies between the lowest and
// the highest of all and was seen by none.
struct count {
	__u64 packets; // forwarded
	__u64 bytes; // of RTP
	__u64 last; // CLOCK_MONOTONIC, nanoseconds
	__u64 seen; // packets that have a number, also those left to user space
	struct place {
		__s32 highest;
		__u32 shift; // the number's low half is the sequence number and this
	} __attribute__((aligned(8))) place;
	__u32 generation;
	__s32 first; // lowest number
	__u32 leap; // sequence number that would confirm a leap; above 0xffff: none
	__u32 timed; // whether there is a transit
	__u32 transit; // of the last packet, RTP clock units
	__u32 jitter; // 16 times, as in RFC 3550 A.8
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct flow) == 192 && sizeof(struct count) == 64, "see layout.rs");

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
	PASS_SOCKET, // for user space, and it has no AF_XDP socket at this queue
	VERDICTS,
};

// The first slot of the media ports with the same place (`place_of`), others by its `next`: at most
// CHAIN_MAX. User space sees to that, and never takes one away.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, PLACES);
} ports SEC(".maps");

// The sizes of these two are set by the loader.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct flow);
	__uint(max_entries, 4096);
} flows SEC(".maps");

// `cpus` for each flow, and each CPU has its own: user space reads them through a mapping, without a
// call for each flow.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct count);
	__uint(max_entries, 4096 * 64);
} counts SEC(".maps");

// How many CPUs there can be; the loader sets it.
const volatile __u32 cpus = 64;

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

static __always_inline __u32 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u32 fold_long(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return fold((sum & 0xffff) + (sum >> 16));
}

// Sum of the 16-bit words of an IPv4 header.
static __always_inline __u32 ip_sum(const struct iphdr *ip)
{
	const __u32 *words = (const __u32 *)ip;

	return fold_long((__u64)words[0] + words[1] + words[2] + words[3] + words[4]);
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
	return fold_long(sum);
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

// Looking for the CPU that had a stream last.
struct search {
	__u64 last;
	__u32 slot;
	__u32 generation;
	__u32 found; // place in `counts`, or NOBODY
	__u32 unused;
};

#define NOBODY (~0u)

static long ask(__u32 cpu, struct search *search)
{
	__u32 at = search->slot * cpus + cpu;
	struct count *count = bpf_map_lookup_elem(&counts, &at);

	if (count && count->generation == search->generation && count->last > search->last) {
		search->last = count->last;
		search->found = at;
	}
	return 0;
}

// Another CPU may have had the stream since this one did: numbers and jitter go on from there.
static __noinline void take_over(struct count *count, __u32 slot)
{
	struct search search = {
		.last = count->last,
		.slot = slot,
		.generation = count->generation,
		.found = NOBODY,
	};
	struct count *other;

	bpf_loop(cpus, ask, &search, 0);
	if (search.found == NOBODY)
		return;
	other = bpf_map_lookup_elem(&counts, &search.found);
	if (!other)
		return;
	// Both halves at once: the other CPU may be about to write them.
	*(volatile __u64 *)&count->place = *(volatile __u64 *)&other->place;
	count->timed = other->timed;
	count->transit = other->transit;
	count->jitter = other->jitter;
}

// How far a sequence number is ahead of the highest one, modulo 2^16.
static __always_inline __u16 ahead_of(const struct count *count, __u16 sequence)
{
	return sequence + (__u16)count->place.shift - (__u16)count->place.highest;
}

static __always_inline int is_far(__u16 ahead)
{
	return ahead >= DROPOUT_MAX && ahead <= 0x10000 - MISORDER_MAX;
}

// Follows the sequence numbers of a stream (RFC 3550 A.1). A leap forwards or far back counts only
// when the next number follows it; the new row is numbered on from the old one.
static __always_inline void follow(struct count *count, __u32 slot, __u16 sequence)
{
	__u16 ahead = ahead_of(count, sequence);
	struct place place;
	__s32 number;

	if (is_far(ahead)) {
		take_over(count, slot);
		ahead = ahead_of(count, sequence);
	}
	place = count->place;
	if (is_far(ahead)) {
		if (sequence != count->leap) {
			// Alone it is nobody's: not expected, and not received.
			count->leap = (sequence + 1) & 0xffff;
			return;
		}
		// The one before was the first of the new row.
		number = place.highest + 1;
		place.highest += 2;
		place.shift = (__u16)(place.highest - sequence);
		count->seen += 1;
	} else if (ahead < DROPOUT_MAX) {
		place.highest += ahead;
		number = place.highest;
	} else {
		// Late, or twice.
		number = place.highest - (__s32)(0x10000 - ahead);
	}
	*(volatile __u64 *)&count->place = *(__u64 *)&place;
	if (number < count->first)
		count->first = number;
	count->leap = 0x10000;
	count->seen += 1;
}

// Counts a packet that is forwarded, and its jitter (RFC 3550 A.8). A difference above a second is a
// new start of the timestamps, as for the sockets.
static __always_inline void watch(struct count *count, __u64 now, __u32 ticks, __u32 timestamp,
				  __u32 payload)
{
	// The product may overflow: only its bits 32 to 63 are of interest.
	__u32 transit = (__u32)((now * ticks) >> 32) - timestamp;
	__s32 distance = transit - count->transit;

	if (distance < 0)
		distance = -distance;
	if (count->timed && ticks != 0 && (__u32)distance <= (1000000000ull * ticks) >> 32)
		count->jitter += (__u32)distance - ((count->jitter + 8) >> 4);
	count->transit = transit;
	count->timed = 1;
	count->last = now;
	count->packets += 1;
	count->bytes += payload;
}

static __always_inline void start(struct count *count, __u32 generation, __u16 sequence)
{
	count->packets = 0;
	count->bytes = 0;
	count->last = 0;
	count->seen = 0;
	// As if the packet before had been the last one.
	count->place.highest = (__s32)sequence - 1;
	count->place.shift = 0;
	count->first = 0x7fffffff;
	count->leap = 0x10000;
	count->timed = 0;
	count->transit = 0;
	count->jitter = 0;
	count->generation = generation;
}

// The UDP checksum of the packet that leaves. Negative: the packet is not to be touched.
static __always_inline __s32 checksum(const struct way *way, const struct udphdr *udp, __u32 length,
				      __u32 version, const void *end)
{
	__u32 old = udp->check;
	// Words of the pseudo header that both sides share.
	__u32 common = bpf_htons(IPPROTO_UDP) + udp->len;
	__u32 partial = fold(way->sum_in + common);
	__u32 sum;

	if (old != 0 && (!(way->flags & (FILL_CHECKSUM | KEEP_PARTIAL)) || old != partial)) {
		// RFC 1624: all that changes is known before the packet comes. A checksum that was
		// wrong stays wrong, by as much.
		sum = fold((~old & 0xffff) + way->delta);
	} else {
		// IPv6 has no packet without a checksum (RFC 8200 8.1).
		if (old == 0 && version != 4)
			return -1;
		__s64 octets = sum_of(udp, length, end);

		if (octets < 0)
			return -1;
		if (old != 0 && fold(octets + partial) == 0xffff)
			// Complete after all: the sum of its pseudo header happens to be its checksum.
			sum = fold((~old & 0xffff) + way->delta);
		else if (old != 0 && (way->flags & KEEP_PARTIAL))
			return fold(way->sum_out + common);
		else
			// None yet (a sender over IPv4 may leave it out, a local one leaves it to the
			// hardware): from the words of the packet that leaves.
			sum = fold(octets + (~old & 0xffff) + way->sum_in + common + way->delta);
	}
	sum = ~sum & 0xffff;
	// Zero would say that there is none (RFC 768).
	return sum ? sum : 0xffff;
}

// Where `ports` leads to the flows of a port: ports of one address stand side by side.
static __always_inline __u32 place_of(__u32 address, __be16 port)
{
	return (((address * 0x9e3779b1u) >> 16) + bpf_ntohs(port)) & (PLACES - 1);
}

// The other loads stay on their side of it.
#define ORDERED() asm volatile("" ::: "memory")

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
	const __u32 *local = version == 4 ? &ip4->daddr : (__u32 *)&ip6->daddr;
	const __u64 *addresses = version == 4 ? (__u64 *)&ip4->saddr : (__u64 *)&ip6->saddr;
	struct udphdr *udp = data + l2 + l3;
	__u8 *rtp = data + l2 + l3 + sizeof(*udp);
	__u32 total;
	__u32 place;

	// Nothing of ours is shorter.
	if ((void *)(rtp + RTP_HEADER_BYTES) > end)
		return XDP_PASS;
	if (version == 4) {
		// No options, no fragments, nothing reserved.
		if (*(__u8 *)ip4 != 0x45 || ip4->protocol != IPPROTO_UDP ||
		    (ip4->frag_off & bpf_htons(0xbfff)))
			return XDP_PASS;
		total = bpf_ntohs(ip4->tot_len);
		place = place_of(local[0], udp->dest);
	} else {
		if (*(__u8 *)ip6 >> 4 != 6 || ip6->nexthdr != IPPROTO_UDP)
			return XDP_PASS;
		total = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
		place = place_of(local[0] ^ local[1] ^ local[2] ^ local[3], udp->dest);
	}

	// Whose port is it?
	const __u32 *first = bpf_map_lookup_elem(&ports, &place);

	if (!first)
		return XDP_PASS;
	__u32 slot = *(const volatile __u32 *)first;
	const struct flow *flow = 0;

	for (int i = 0; i < CHAIN_MAX; i++) {
		if (slot == 0)
			return XDP_PASS;
		flow = bpf_map_lookup_elem(&flows, &slot);
		if (!flow)
			return XDP_PASS;
		if (flow->port == udp->dest && flow->version == version &&
		    (version == 4 ? flow->local4 == local[0] :
				    *(__u64 *)flow->local6 == addresses[2] &&
					    *(__u64 *)(flow->local6 + 2) == addresses[3]))
			break;
		slot = *(const volatile __u32 *)&flow->next;
		flow = 0;
	}
	if (!flow)
		return XDP_PASS;
	__u32 sequence = *(const volatile __u32 *)&flow->sequence;

	ORDERED();
	__u8 kind = flow->kind;

	if (kind == NONE || (sequence & 1))
		return pass(PASS_FLOW);

	// Whose packet is it?
	if (*(__u32 *)udp != *(__u32 *)&flow->source_port || vlan != flow->vlan ||
	    *(__u32 *)data != *(__u32 *)flow->mac ||
	    *(__u16 *)(data + 4) != *(__u16 *)(flow->mac + 4))
		return pass(PASS_SOURCE);
	if (version == 4) {
		if (ip4->saddr != flow->source4)
			return pass(PASS_SOURCE);
		if (ip_sum(ip4) != 0xffff)
			return pass(PASS_CHECKSUM);
	} else {
		if (*(__u64 *)flow->source6 != addresses[0] ||
		    *(__u64 *)(flow->source6 + 2) != addresses[1])
			return pass(PASS_SOURCE);
	}

	// Is it RTP, whole, and nothing else?
	__u32 length = bpf_ntohs(udp->len);
	// What an Ethernet card or a careless sender left behind the packet.
	long surplus = (end - data) - (long)(l2 + total);

	if (length < sizeof(*udp) + RTP_HEADER_BYTES || length > sizeof(*udp) + PAYLOAD_MAX_BYTES ||
	    length != total - l3 || surplus < 0)
		return pass(PASS_PACKET);
	__u32 payload = length - sizeof(*udp);
	__u8 type = rtp[1] & 0x7f;

	// 64 to 95 are the packet types of RTCP (RFC 5761).
	if (rtp[0] >> 6 != 2 || (type >= 64 && type <= 95))
		return pass(PASS_PACKET);
	if (*(__be32 *)(rtp + 8) != flow->ssrc)
		return pass(PASS_SSRC);
	if (kind == DELIVER) {
		// Its contents, padding among them, are checked after decryption.
		__u32 queue = ctx->rx_queue_index;
		__u32 socket = flow->socket;

		ORDERED();
		if (*(const volatile __u32 *)&flow->sequence != sequence)
			return pass(PASS_FLOW);
		if (queue >= QUEUES_MAX)
			return pass(PASS_HOP);
		int action = bpf_redirect_map(&sockets, socket + queue, XDP_PASS);

		return tell(action == XDP_REDIRECT ? DELIVERED : PASS_SOCKET, action);
	}
	if ((rtp[0] & 0x3f) && !is_sound(rtp, payload, end))
		return pass(PASS_PACKET);

	struct way way;

	way.user_types[0] = flow->user_types[0];
	way.user_types[1] = flow->user_types[1];
	way.generation = flow->generation;
	way.ticks = flow->ticks;
	way.sum_in = flow->sum_in;
	way.sum_out = flow->sum_out;
	way.delta = flow->delta;
	way.mtu = flow->out_mtu;
	way.interface = flow->out_interface;
	way.vlan = flow->out_vlan;
	way.tos = flow->tos;
	way.ttl = flow->ttl;
	way.flags = flow->flags;
	way.ports = *(__u32 *)&flow->out_source_port;
	way.macs = *(__u64 *)flow->out_target_mac;
	way.more_macs = *(__u32 *)(flow->out_source_mac + 2);
	if (version == 4) {
		way.ip_sum = flow->out_ip_sum;
		way.addresses[0] = *(__u64 *)&flow->out_source4;
	} else {
		way.addresses[0] = *(__u64 *)flow->out_source6;
		way.addresses[1] = *(__u64 *)(flow->out_source6 + 2);
		way.addresses[2] = *(__u64 *)flow->out_target6;
		way.addresses[3] = *(__u64 *)(flow->out_target6 + 2);
	}
	// The second look. No test shows that it is needed: nothing that a test may run comes between the
	// two, but for a tracing program on is_sound, and our loader cannot attach one to a program.
	ORDERED();
	if (*(const volatile __u32 *)&flow->sequence != sequence)
		return pass(PASS_FLOW);

	int for_user = type == way.user_types[0] || type == way.user_types[1];
	int no_hop = way.interface == 0 || total > way.mtu;
	__s32 sum = 0;

	if (!for_user && !no_hop) {
		sum = checksum(&way, udp, length, version, end);
		if (sum < 0)
			return pass(PASS_CHECKSUM);
	}
	__u32 own = slot * cpus + bpf_get_smp_processor_id();
	struct count *count = bpf_map_lookup_elem(&counts, &own);

	if (!count)
		return XDP_PASS;
	__u16 number = bpf_ntohs(*(__be16 *)(rtp + 2));
	__u64 now = bpf_ktime_get_ns();

	if (count->generation != way.generation)
		start(count, way.generation, number);
	if (now - count->last > ELSEWHERE_NS)
		take_over(count, slot);
	// What user space takes is not counted as forwarded here, but its number is no gap.
	follow(count, slot, number);
	if (for_user)
		return pass(PASS_TYPE);
	if (no_hop)
		return pass(PASS_HOP);
	watch(count, now, way.ticks, bpf_ntohl(*(__be32 *)(rtp + 4)), payload);

	// From here on the packet is ours.
	const __u32 tagged = sizeof(struct ethhdr) + sizeof(struct vlan_header);
	__u32 l2_out = way.vlan ? tagged : sizeof(struct ethhdr);
	__be16 protocol = version == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);

	if (l2_out != l2) {
		if (bpf_xdp_adjust_head(ctx, (int)l2 - (int)l2_out))
			return tell(FAILED, XDP_DROP);
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
	}
	void *ip;

	if (way.vlan) {
		struct vlan_header *header = data + sizeof(struct ethhdr);

		ip = data + tagged;
		if (ip + l3 + sizeof(*udp) > end)
			return tell(FAILED, XDP_DROP);
		header->tag = way.vlan;
		header->protocol = protocol;
		protocol = bpf_htons(ETH_P_8021Q);
	} else {
		ip = data + sizeof(struct ethhdr);
		if (ip + l3 + sizeof(*udp) > end)
			return tell(FAILED, XDP_DROP);
	}
	*(__u64 *)data = way.macs;
	*(__u32 *)(data + 8) = way.more_macs;
	*(__be16 *)(data + 12) = protocol;

	// The packet is one of ours: nothing of the sender's IP header goes on, as through a socket.
	if (version == 4) {
		ip4 = ip;
		__u32 check = ~fold(way.ip_sum + ip4->tot_len) & 0xffff;

		*(__u16 *)ip4 = 0x45 | (__u16)way.tos << 8;
		// No identification; not to be fragmented.
		*(__be32 *)&ip4->id = bpf_htonl(0x00004000);
		*(__u32 *)&ip4->ttl = way.ttl | IPPROTO_UDP << 8 | check << 16;
		*(__u64 *)&ip4->saddr = way.addresses[0];
	} else {
		ip6 = ip;
		*(__be32 *)ip6 = bpf_htonl(0x60000000 | ((__u32)way.tos << 20));
		ip6->hop_limit = way.ttl;
		__u64 *out = (__u64 *)&ip6->saddr;

		out[0] = way.addresses[0];
		out[1] = way.addresses[1];
		out[2] = way.addresses[2];
		out[3] = way.addresses[3];
	}
	udp = ip + l3;
	*(__u32 *)udp = way.ports;
	udp->check = sum;
	if (surplus > 0 && bpf_xdp_adjust_tail(ctx, -surplus))
		return tell(FAILED, XDP_DROP);
	if (way.interface == ctx->ingress_ifindex && !(way.flags & ALWAYS_REDIRECT))
		return XDP_TX;
	return bpf_redirect_map(&interfaces, way.interface, XDP_DROP);
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
