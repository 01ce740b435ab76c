#include "base/id.h"

#include <pthread.h>

#include "base/err.h"

static void format(const unsigned char b[16], struct mu_id *ret)
{
    static const char hex[] = "0123456789abcdef";
    size_t at = 0;
    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            ret->text[at++] = '-';
        }
        ret->text[at++] = hex[b[i] >> 4];
        ret->text[at++] = hex[b[i] & 15];
    }
    ret->text[at] = 0;
}

static void put_time(unsigned char b[16], int64_t ms)
{
    for (int i = 0; i < 6; i++) {
        b[i] = (unsigned char)((uint64_t)ms >> (40 - 8 * i));
    }
}

/* 12 bits of counter in the field after the version keep ids of one millisecond in order; when they
 * run out the time moves one ahead. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t last_ms;
static unsigned counter;

struct mu_id mu_id_new(const struct mu_env *env, int64_t *ret_ms)
{
    unsigned char b[16];
    env->random(env, b, sizeof b);
    int64_t now = env->wall_ms(env);
    pthread_mutex_lock(&lock);
    if (now > last_ms) {
        last_ms = now;
        counter = b[7] & 0x7fu; /* a random start leaves room for some 3,900 more */
    } else if (++counter > 0xfff) {
        last_ms++;
        counter = 0;
    }
    int64_t ms = last_ms;
    unsigned n = counter;
    pthread_mutex_unlock(&lock);
    put_time(b, ms);
    b[6] = (unsigned char)(0x70 | n >> 8);
    b[7] = (unsigned char)n;
    b[8] = (unsigned char)(0x80 | (b[8] & 0x3f));
    struct mu_id id;
    format(b, &id);
    if (ret_ms) {
        *ret_ms = ms;
    }
    return id;
}

struct mu_id mu_id_floor(int64_t ms)
{
    unsigned char b[16] = {0};
    put_time(b, ms < 0 ? 0 : MU_MIN(ms, (INT64_C(1) << 48) - 1));
    b[6] = 0x70;
    b[8] = 0x80;
    struct mu_id id;
    format(b, &id);
    return id;
}

struct mu_id mu_id_random(const struct mu_env *env)
{
    unsigned char b[16];
    env->random(env, b, sizeof b);
    b[6] = (unsigned char)(0x40 | (b[6] & 0x0f));
    b[8] = (unsigned char)(0x80 | (b[8] & 0x3f));
    struct mu_id id;
    format(b, &id);
    return id;
}

int mu_id_parse(mu_bytes text, const char *prefix, struct mu_id *ret)
{
    if (prefix && mu_bytes_starts(text, mu_str(prefix))) {
        text = mu_bytes_from(text, strlen(prefix));
    }
    if (text.len != MU_ID_LEN) {
        return MU_E_INVALID;
    }
    struct mu_id id;
    for (size_t i = 0; i < MU_ID_LEN; i++) {
        char c = text.ptr[i];
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (c >= 'A' && c <= 'F') {
            c = (char)(c + 32);
        }
        bool ok = dash ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (!ok) {
            return MU_E_INVALID;
        }
        id.text[i] = c;
    }
    id.text[MU_ID_LEN] = 0;
    *ret = id;
    return 0;
}

int64_t mu_id_ms(const struct mu_id *id)
{
    if (id->text[0] == 0 || id->text[14] != '7') {
        return 0;
    }
    int64_t ms = 0;
    for (int i = 0; i < 13; i++) {
        char c = id->text[i];
        if (c != '-') {
            ms = ms << 4 | (c <= '9' ? c - '0' : c - 'a' + 10);
        }
    }
    return ms;
}
