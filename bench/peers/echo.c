// The far parties of bench/peers/srtp: what one of them gets, its neighbour sends, as it is. The key of
// what either sends is that of what the other gets, so it need not be encrypted anew.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// devices.SERVER_RTP
#define PARTY 0x0a5b0202
// devices.FIRST_PORT: of the first party; the others are on every second port from there on.
#define FIRST_PORT 20000
#define PARTIES 4096

// Where the edge takes what a party sends.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, PARTIES);
} ports SEC(".maps");

SEC("xdp")
int echo(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	__u8 mac[ETH_ALEN];

	if ((void *)(udp + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 ||
	    ip->protocol != IPPROTO_UDP || ip->daddr != bpf_htonl(PARTY))
		return XDP_PASS;
	__u32 neighbour = (__u32)(bpf_ntohs(udp->dest) - FIRST_PORT) / 2 ^ 1;
	const __u32 *port = bpf_map_lookup_elem(&ports, &neighbour);

	if (!port || !*port)
		return XDP_DROP;
	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	ip->daddr = ip->saddr;
	ip->saddr = bpf_htonl(PARTY);
	udp->dest = bpf_htons(*port);
	udp->source = bpf_htons(FIRST_PORT + 2 * neighbour);
	// A sender on this machine leaves it to hardware that is not there.
	udp->check = 0;
	// XDP_TX wakes the other end of a veth only if that has a program too.
	return bpf_redirect(ctx->ingress_ifindex, 0);
}

char _license[] SEC("license") = "Apache-2.0";
