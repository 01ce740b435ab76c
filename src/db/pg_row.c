#include "db/pg_int.h"

int mu_pg_code(const char *sqlstate)
{
    static const struct {
        const char *prefix;
        int code;
    } map[] = {
        {"23", MU_E_CONSTRAINT},   {"40001", MU_E_RETRY},     {"40P01", MU_E_RETRY},
        {"55P03", MU_E_RETRY},     {"53100", MU_E_DISK_FULL}, {"53200", MU_E_RETRY},
        {"53", MU_E_CLOSED},       {"57014", MU_E_CANCELLED}, {"57P", MU_E_CLOSED},
        {"08", MU_E_CLOSED},       {"25006", MU_E_IO},        {"25P03", MU_E_CLOSED},
        {"25P04", MU_E_CLOSED},    {"28", MU_E_CLOSED},       {"3D", MU_E_CLOSED},
        {"54000", MU_E_TOO_LARGE}, {"22", MU_E_INVALID},      {"58", MU_E_IO},
        {"XX001", MU_E_IO},        {"XX002", MU_E_IO},
    };
    if (!sqlstate) {
        return MU_E_CLOSED;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(map); i++) {
        if (mu_bytes_starts(mu_str(sqlstate), mu_str(map[i].prefix))) {
            return map[i].code;
        }
    }
    return MU_E_INTERNAL;
}

static bool outside(struct mu_row *r, int col)
{
    if (col >= 0 && col < PQnfields(r->handle)) {
        return false;
    }
    r->bad = true;
    return true;
}

bool mu_pg_row_null(struct mu_row *r, int col)
{
    return outside(r, col) || PQgetisnull(r->handle, r->row, col);
}

static int64_t big_endian(const char *p, int len)
{
    uint64_t v = (p[0] & 0x80) ? UINT64_MAX : 0;
    for (int i = 0; i < len; i++) {
        v = v << 8 | (unsigned char)p[i];
    }
    return (int64_t)v;
}

/* sum() of bigint columns is numeric: digits to the base 10000, the first worth 10000^weight. */
static int64_t numeric(struct mu_row *r, const char *p, int len)
{
    int digits = len >= 8 ? (int)big_endian(p, 2) : -1;
    int weight = len >= 8 ? (int)big_endian(p + 2, 2) : 0;
    int sign = len >= 8 ? (int)(big_endian(p + 4, 2) & 0xffff) : 0;
    if (digits < 0 || len < 8 + 2 * digits || digits > weight + 1 ||
        (sign != 0 && sign != 0x4000)) {
        r->bad = r->bad || digits != 0 || (sign != 0 && sign != 0x4000);
        return 0;
    }
    int64_t v = 0;
    for (int i = 0; digits && i <= weight; i++) {
        int64_t d = i < digits ? big_endian(p + 8 + 2 * i, 2) : 0;
        if (__builtin_mul_overflow(v, 10000, &v) || __builtin_add_overflow(v, sign ? -d : d, &v)) {
            r->bad = true;
            return 0;
        }
    }
    return v;
}

int64_t mu_pg_row_i64(struct mu_row *r, int col)
{
    if (mu_pg_row_null(r, col)) {
        return 0;
    }
    const char *p = PQgetvalue(r->handle, r->row, col);
    int len = PQgetlength(r->handle, r->row, col);
    switch (PQftype(r->handle, col)) {
    case MU_PG_BOOL:
        return p[0] != 0;
    case MU_PG_INT2:
    case MU_PG_INT4:
    case MU_PG_INT8:
        return big_endian(p, len);
    case MU_PG_NUMERIC:
        return numeric(r, p, len);
    default:
        r->bad = true;
        return 0;
    }
}

mu_bytes mu_pg_row_bytes(struct mu_row *r, int col)
{
    if (mu_pg_row_null(r, col)) {
        return MU_B_NONE;
    }
    switch (PQftype(r->handle, col)) {
    case MU_PG_TEXT:
    case MU_PG_BYTEA:
    case MU_PG_NAME:
    case MU_PG_JSON:
    case MU_PG_BPCHAR:
    case MU_PG_VARCHAR:
    case MU_PG_VOID:
        return mu_bytes_of(PQgetvalue(r->handle, r->row, col),
                           (size_t)PQgetlength(r->handle, r->row, col));
    default:
        r->bad = true;
        return MU_B_NONE;
    }
}
