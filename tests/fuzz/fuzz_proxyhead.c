/* Heads of proxy requests and first bytes of TLS connections, as they come out of a sandbox. */
#include "exec/broker/broker.h"
#include "exec/broker/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes text = mu_bytes_of((const char *)data, size), name = MU_B_NONE;
    struct mu_proxy_head head;
    const char *why;
    if (mu_proxy_head_parse(text, &head, &why) == 0) {
        MU_CHECK(mu_broker_host_ok(head.host) && head.port != 0);
        MU_CHECK(head.connect || (head.port == 80 && head.target.len && head.target.ptr[0] == '/'));
        MU_CHECK(!memchr(head.host.ptr, 0, head.host.len));
    }
    if (mu_sni_find(text, &name) == MU_SNI_FOUND) {
        MU_CHECK(name.ptr >= text.ptr && name.ptr + name.len <= text.ptr + text.len);
    }
    return 0;
}
