package lmi.driver;

import ai.djl.MalformedModelException;
import ai.djl.inference.Predictor;
import ai.djl.modality.Input;
import ai.djl.modality.Output;
import ai.djl.repository.zoo.Criteria;
import ai.djl.repository.zoo.ModelNotFoundException;
import ai.djl.repository.zoo.ZooModel;
import ai.djl.translate.TranslateException;

import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * One model with one worker, as the model server holds it: a single thread submits (a worker's
 * socket takes one request at a time); in rolling-batch and async mode submitting returns at once.
 */
final class PythonModel implements AutoCloseable {

    private final ZooModel<Input, Output> model;
    private final Predictor<Input, Output> predictor;
    private final ExecutorService submitting = Executors.newSingleThreadExecutor();

    private PythonModel(ZooModel<Input, Output> model, Predictor<Input, Output> predictor) {
        this.model = model;
        this.predictor = predictor;
    }

    /** Starts the Python process and waits for its initialise reply. */
    static PythonModel load(Path folder, String engine, Map<String, String> options)
            throws ModelNotFoundException, MalformedModelException, IOException {
        Criteria.Builder<Input, Output> criteria =
                Criteria.builder()
                        .setTypes(Input.class, Output.class)
                        .optModelPath(folder)
                        .optEngine(engine);
        options.forEach(criteria::optOption);
        ZooModel<Input, Output> model = criteria.build().loadModel();
        try {
            return new PythonModel(model, model.newPredictor());
        } catch (RuntimeException e) {
            model.close();
            throw e;
        }
    }

    ExecutorService submitting() {
        return submitting;
    }

    synchronized Output predict(Input input) throws TranslateException {
        return predictor.predict(input);
    }

    synchronized List<Output> batchPredict(List<Input> inputs) throws TranslateException {
        return predictor.batchPredict(inputs);
    }

    @Override
    public void close() {
        submitting.shutdownNow();
        predictor.close();
        model.close();
    }
}
