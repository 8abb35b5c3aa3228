package sotto;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import org.apache.commons.codec.digest.Blake3;
import org.apache.spark.sql.api.java.UDF3;

/**
 * The shard that a key belongs to, as {@code sotto part locate} says: keyed BLAKE3 of "k" and the key, whose
 * first 8 bytes, little-endian, times the number of shards, have the shard in their upper 64 bits. What it
 * needs is among Spark's own jars.
 */
public final class ShardOf implements UDF3<String, byte[], Integer, Integer> {
    @Override
    public Integer call(String key, byte[] seed, Integer shardCount) {
        if (key == null) {
            return 0; // where `sotto part encode` says that a key is empty
        }
        byte[] hash = Blake3.initKeyedHash(seed)
                .update(new byte[] {'k'})
                .update(key.getBytes(StandardCharsets.UTF_8))
                .doFinalize(Long.BYTES);
        long word = ByteBuffer.wrap(hash).order(ByteOrder.LITTLE_ENDIAN).getLong();
        // Math.unsignedMultiplyHigh is of Java 18; Spark runs on 17 too.
        return (int) (Math.multiplyHigh(word, shardCount) + ((word >> 63) & shardCount));
    }
}
