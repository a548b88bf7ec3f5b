#define NM_STEER_MARK 0x6e6d
