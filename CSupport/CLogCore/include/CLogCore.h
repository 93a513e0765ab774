// The C core of TwinLog: the only code that stores to persistent memory. One header per noun.
#pragma once
#include "tl_crc32c.h"
#include "tl_fault.h"
#include "tl_file.h"
#include "tl_log.h"
#include "tl_persist.h"
#include "tl_record.h"
#include "tl_recorder.h"
#include "tl_scan.h"
