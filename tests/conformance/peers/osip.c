/* Prints how libosip2 reads each SIP message named on the command line: one block of key=value
 * lines for each, as sofia.c does. Compared by data-plane/wire/tests/peers.rs. */
#include <osipparser2/osip_parser.h>
#include <stdio.h>
#include <stdlib.h>

static char octets[70000];

static const char *or_dash(const char *text) { return text ? text : "-"; }

static const char *tag_of(osip_from_t *address)
{
    osip_generic_param_t *tag = NULL;
    if (address)
        osip_from_get_tag(address, &tag);
    return tag ? or_dash(tag->gvalue) : "-";
}

static void print(const osip_message_t *m)
{
    osip_generic_param_t *branch = NULL;
    osip_via_t *via = osip_list_get(&m->vias, 0);
    const char *host = m->call_id ? m->call_id->host : NULL;

    if (MSG_IS_REQUEST(m))
        printf("start=%s\n", m->sip_method);
    else
        printf("start=%d\n", m->status_code);
    printf("from=%s\nto=%s\n", tag_of(m->from), tag_of(m->to));
    printf("call_id=%s%s%s\n", m->call_id ? or_dash(m->call_id->number) : "-",
           host ? "@" : "", host ? host : "");
    printf("cseq=%lu %s\n", m->cseq ? strtoul(m->cseq->number, NULL, 10) : 0,
           m->cseq ? m->cseq->method : "-");
    if (via)
        osip_via_param_get_byname(via, "branch", &branch);
    printf("branch=%s\n", branch ? or_dash(branch->gvalue) : "-");
    printf("vias=%d\ncontacts=%d\nroutes=%d\n", osip_list_size(&m->vias),
           osip_list_size(&m->contacts), osip_list_size(&m->routes));
}

int main(int argc, char **argv)
{
    parser_init();
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        size_t length = file ? fread(octets, 1, sizeof octets - 1, file) : 0;
        osip_message_t *message = NULL;

        if (file)
            fclose(file);
        octets[length] = 0;
        printf("#\n");
        osip_message_init(&message);
        if (osip_message_parse(message, octets, length))
            printf("refused=1\n");
        else
            print(message);
        osip_message_free(message);
    }
    return 0;
}
