/* One PostgreSQL server for all tests of a group; `present` tells whether there is one. */
#ifndef TEST_DB_PG_GROUP_H
#define TEST_DB_PG_GROUP_H

#include "pg_server.h"

static struct pg_server server;
static bool present;

static int pg_begin(void **state)
{
    (void)state;
    present = pg_start(&server);
    return 0;
}

static int pg_end(void **state)
{
    (void)state;
    pg_stop(&server);
    return 0;
}

#endif
