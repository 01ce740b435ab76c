#include "exec/engine/response.h"

static int fail(struct mu_response *r, int code)
{
    r->failed = r->failed ? r->failed : code;
    return HPE_USER;
}

static int count(struct mu_response *r, size_t n)
{
    r->head_bytes += n;
    return r->head_bytes > MU_RESPONSE_HEAD ? fail(r, MU_E_TOO_LARGE) : 0;
}

static void take(char *dst, size_t room, size_t *len, const char *at, size_t n)
{
    size_t fits = MU_MIN(n, room - 1 - *len);
    memcpy(dst + *len, at, fits);
    *len += fits;
    dst[*len] = 0;
}

static int on_status(llhttp_t *ll, const char *at, size_t n)
{
    (void)at;
    return count(ll->data, n);
}

static int on_field(llhttp_t *ll, const char *at, size_t n)
{
    struct mu_response *r = ll->data;
    if (r->in_value) {
        r->in_value = false;
        r->name_len = r->value_len = 0;
        r->value[0] = 0;
    }
    take(r->name, sizeof r->name, &r->name_len, at, n);
    return count(r, n + 4);
}

static int on_value(llhttp_t *ll, const char *at, size_t n)
{
    struct mu_response *r = ll->data;
    r->in_value = true;
    take(r->value, sizeof r->value, &r->value_len, at, n);
    return count(r, n);
}

static int on_value_complete(llhttp_t *ll)
{
    struct mu_response *r = ll->data;
    mu_bytes name = mu_bytes_of(r->name, r->name_len);
    r->in_value = true;
    if (mu_bytes_eq_nocase(name, MU_B("api-version"))) {
        size_t len = 0;
        take(r->api_version, sizeof r->api_version, &len, r->value, r->value_len);
    } else if (mu_bytes_eq_nocase(name, MU_B("libpod-api-version"))) {
        r->libpod = true;
    }
    return 0;
}

static int on_headers_complete(llhttp_t *ll)
{
    struct mu_response *r = ll->data;
    int status = llhttp_get_status_code(ll);
    if (status < 200) {
        /* 101 hands the connection over: nothing here asks for that. */
        return status == 101 || status < 100 ? fail(r, MU_E_PROTOCOL) : 0;
    }
    r->status = status;
    int e = r->on_head ? r->on_head(r->arg, r) : 0;
    if (e < 0) {
        return fail(r, e);
    }
    return r->head_request ? 1 : 0;
}

static int on_body(llhttp_t *ll, const char *at, size_t n)
{
    struct mu_response *r = ll->data;
    int e = r->on_body ? r->on_body(r->arg, mu_bytes_of(at, n)) : 0;
    return e < 0 ? fail(r, e) : 0;
}

static int on_complete(llhttp_t *ll)
{
    struct mu_response *r = ll->data;
    if (r->status == 0) { /* an interim answer */
        r->head_bytes = r->name_len = r->value_len = 0;
        r->in_value = false;
        return 0;
    }
    r->complete = true;
    return HPE_PAUSED;
}

void mu_response_init(struct mu_response *r, bool head_request)
{
    *r = (struct mu_response){.head_request = head_request};
    llhttp_settings_init(&r->settings);
    r->settings.on_status = on_status;
    r->settings.on_header_field = on_field;
    r->settings.on_header_value = on_value;
    r->settings.on_header_value_complete = on_value_complete;
    r->settings.on_headers_complete = on_headers_complete;
    r->settings.on_body = on_body;
    r->settings.on_message_complete = on_complete;
    llhttp_init(&r->ll, HTTP_RESPONSE, &r->settings);
}

static int verdict(struct mu_response *r, llhttp_errno_t e)
{
    if (r->failed) {
        return r->failed;
    }
    if (r->complete) {
        return 1;
    }
    if (e != HPE_OK) {
        return r->failed = MU_E_PROTOCOL;
    }
    return 0;
}

int mu_response_feed(struct mu_response *r, mu_bytes in)
{
    if (r->failed || r->complete) {
        return r->failed ? r->failed : 1;
    }
    r->ll.data = r;
    return in.len ? verdict(r, llhttp_execute(&r->ll, in.ptr, in.len)) : 0;
}

int mu_response_end(struct mu_response *r)
{
    if (r->failed || r->complete) {
        return r->failed ? r->failed : 1;
    }
    r->ll.data = r;
    llhttp_errno_t e = llhttp_finish(&r->ll);
    if (r->failed || r->complete) {
        return verdict(r, e);
    }
    return r->failed = MU_E_CLOSED;
}
