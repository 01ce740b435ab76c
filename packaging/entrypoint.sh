#!/bin/sh
exec /agent/bin/muster runner "$@"
