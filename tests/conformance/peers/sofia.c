/* Prints how sofia-sip reads each SIP message named on the command line: one block of key=value
 * lines for each, as osip.c does. Compared by data-plane/wire/tests/peers.rs. */
#include <sofia-sip/msg.h>
#include <sofia-sip/msg_header.h>
#include <sofia-sip/sip.h>
#include <sofia-sip/sip_header.h>
#include <stdio.h>

static char octets[70000];

static const char *or_dash(const char *text) { return text ? text : "-"; }

static void print(const sip_t *m)
{
    int vias = 0, contacts = 0, routes = 0;

    if (m->sip_request)
        printf("start=%s\n", m->sip_request->rq_method_name);
    else
        printf("start=%d\n", m->sip_status->st_status);
    printf("from=%s\n", m->sip_from ? or_dash(m->sip_from->a_tag) : "-");
    printf("to=%s\n", m->sip_to ? or_dash(m->sip_to->a_tag) : "-");
    printf("call_id=%s\n", m->sip_call_id ? or_dash(m->sip_call_id->i_id) : "-");
    printf("cseq=%lu %s\n", m->sip_cseq ? (unsigned long)m->sip_cseq->cs_seq : 0,
           m->sip_cseq ? m->sip_cseq->cs_method_name : "-");
    printf("branch=%s\n", m->sip_via ? or_dash(m->sip_via->v_branch) : "-");
    for (const sip_via_t *via = m->sip_via; via; via = via->v_next)
        vias++;
    for (const sip_contact_t *contact = m->sip_contact; contact; contact = contact->m_next)
        contacts++;
    for (const sip_route_t *route = m->sip_route; route; route = route->r_next)
        routes++;
    printf("vias=%d\ncontacts=%d\nroutes=%d\n", vias, contacts, routes);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        size_t length = file ? fread(octets, 1, sizeof octets - 1, file) : 0;
        msg_t *message = msg_make(sip_default_mclass(), 0, octets, length);
        const sip_t *sip = message ? sip_object(message) : NULL;

        if (file)
            fclose(file);
        printf("#\n");
        if (!sip || sip->sip_error || !(sip->sip_request || sip->sip_status))
            printf("refused=1\n");
        else
            print(sip);
        if (message)
            msg_destroy(message);
    }
    return 0;
}
